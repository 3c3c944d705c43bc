//! What a client has fetched of one partition and nobody has taken yet. Records go from the client's memory into a batch
//! without an object of their own in between, which takes a third of the time. It never waits.

use std::ffi::{CStr, CString, c_void};
use std::ptr::{self, NonNull};

use rdkafka::bindings as sys;
use rdkafka::error::RDKafkaErrorCode;

use crate::batch::{BatchBuilder, RecordRef};
use crate::offset::{Offset, TopicPartition};
use crate::sink::state::Fingerprint;

/// The queue of a partition. It does not outlive its client: whoever owns both drops it first.
pub(super) struct Queue(NonNull<sys::rd_kafka_queue_t>);

/// How a run of records ended.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The batch is full, and there may be more.
    pub full: bool,
    /// Nothing more was committed up to this offset when the client looked.
    pub end: Option<Offset>,
    /// The partition cannot be read on.
    pub error: Option<Broken>,
}

/// Why a partition cannot be read on.
#[derive(Debug, PartialEq, Eq)]
pub enum Broken {
    /// What is there is no record, or not the one that was written.
    Corrupt(String),
    /// The user may not read it.
    Denied(String),
    /// The record at this offset is not the one that was there.
    Replaced(Offset),
    /// Something that may pass.
    Other(String),
}

/// What a run of records is taken into, and up to where.
struct Run<'a> {
    client: *mut sys::rd_kafka_t,
    builder: &'a mut BatchBuilder,
    /// What has to be in front of it, if anything is.
    last: Option<&'a Fingerprint>,
    records: usize,
    bytes: usize,
    taken: Taken,
}

impl Queue {
    /// The queue of `at`, apart from that of the client, and from before its first record on.
    ///
    /// `wake` is a file descriptor to which eight bytes, the number 1, are written when records arrive in the empty queue;
    /// it stays open for longer than the client.
    #[expect(unsafe_code, reason = "the client library has no safe call for it")]
    pub(super) fn open(client: *mut sys::rd_kafka_t, at: &TopicPartition, wake: i32) -> Option<Self> {
        let topic = CString::new(&*at.topic).ok()?;
        // SAFETY: the client lives, the name ends in a zero byte, and a queue that is not null is ours to destroy.
        unsafe {
            let queue =
                NonNull::new(sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), at.partition))?;
            sys::rd_kafka_queue_forward(queue.as_ptr(), ptr::null_mut());
            wake_by(queue.as_ptr(), wake);
            Some(Self(queue))
        }
    }

    /// Whether there is something to take.
    #[expect(unsafe_code, reason = "the client library has no safe call for it")]
    pub(super) fn is_empty(&self) -> bool {
        // SAFETY: the queue is ours, and its client lives.
        unsafe { sys::rd_kafka_queue_length(self.0.as_ptr()) == 0 }
    }

    /// Moves records into `builder` until that has `records` or `bytes`, or no more are there.
    #[expect(unsafe_code, reason = "the client library has no safe call for it")]
    pub(super) fn take(
        &self,
        client: *mut sys::rd_kafka_t,
        builder: &mut BatchBuilder,
        last: Option<&Fingerprint>,
        records: usize,
        bytes: usize,
    ) -> Taken {
        let mut run = Run { client, builder, last, records, bytes, taken: Taken::default() };
        // SAFETY: `run` outlives the call, which calls `take_one` from this thread alone.
        unsafe {
            sys::rd_kafka_consume_callback_queue(self.0.as_ptr(), 0, Some(take_one), (&raw mut run).cast());
        }
        run.taken
    }
}

impl Drop for Queue {
    #[expect(unsafe_code, reason = "the client library has no safe call for it")]
    fn drop(&mut self) {
        // SAFETY: the queue is ours, and its client lives.
        unsafe {
            sys::rd_kafka_queue_io_event_enable(self.0.as_ptr(), -1, ptr::null(), 0);
            sys::rd_kafka_queue_destroy(self.0.as_ptr());
        }
    }
}

// SAFETY: the library's queues have locks of their own; this one is used by one thread at a time.
#[expect(unsafe_code, reason = "a pointer is in no thread's favour")]
unsafe impl Send for Queue {}

/// Has the number 1 written to `fd` whenever something arrives in the empty queue.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
pub(super) unsafe fn wake_by(queue: *mut sys::rd_kafka_queue_t, fd: i32) {
    let one = 1_u64.to_ne_bytes();
    // SAFETY: the caller's queue lives; the library copies the bytes.
    unsafe { sys::rd_kafka_queue_io_event_enable(queue, fd, one.as_ptr().cast(), one.len()) }
}

/// The same of a queue of the client's own; `handle` is given back to it.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
pub(super) unsafe fn wake_by_own(handle: *mut sys::rd_kafka_queue_t, fd: i32) {
    if !handle.is_null() {
        // SAFETY: the caller has the handle from the client, which lives.
        unsafe {
            wake_by(handle, fd);
            sys::rd_kafka_queue_destroy(handle);
        }
    }
}

/// Is called once for each record. It must not unwind, and does not: a panic in an `extern "C"` function ends the process.
#[expect(unsafe_code, reason = "the client library calls it")]
unsafe extern "C" fn take_one(message: *mut sys::rd_kafka_message_t, run: *mut c_void) {
    // SAFETY: it is the run that `Queue::take` passed, and the message lives until this returns.
    let (run, message) = unsafe { (&mut *run.cast::<Run<'_>>(), &*message) };
    match RDKafkaErrorCode::from(message.err) {
        // SAFETY: as above.
        RDKafkaErrorCode::NoError => unsafe { run.take(message) },
        RDKafkaErrorCode::PartitionEOF => {
            run.taken.end = u64::try_from(message.offset).ok().map(|_| Offset::new(message.offset));
        }
        error => {
            // SAFETY: as above.
            let text = unsafe { said(message) }.unwrap_or_else(|| error.to_string());
            let text = super::lower(&text);
            run.taken.error = Some(match error {
                RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::UnsupportedCompressionType
                | RDKafkaErrorCode::NotImplemented => Broken::Corrupt(text),
                code if super::is_denial(code) => Broken::Denied(text),
                _ => Broken::Other(text),
            });
            run.enough();
        }
    }
}

impl Run<'_> {
    #[expect(unsafe_code, reason = "the library's records are pointers and lengths")]
    unsafe fn take(&mut self, message: &sys::rd_kafka_message_t) {
        let Ok(offset) = Offset::try_from(message.offset) else { return };
        // Such as those before the place that was asked for, in a compressed batch that holds both.
        if offset < self.builder.next() {
            if let Some(last) = self.last.filter(|last| last.offset == offset) {
                // SAFETY: the caller's.
                let (key, value) =
                    unsafe { (bytes(message.key, message.key_len), bytes(message.payload, message.len)) };
                if *last != Fingerprint::of(offset, key, value) {
                    self.taken.error = Some(Broken::Replaced(offset));
                    self.enough();
                }
            }
            return;
        }
        // SAFETY: lengths and pointers of a record belong together, and live as long as the message.
        let (key, value, headers, timestamp_ms) = unsafe {
            let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let timestamp = sys::rd_kafka_message_timestamp(message, &raw mut kind);
            let none = kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
            let key = bytes(message.key, message.key_len);
            let value = bytes(message.payload, message.len);
            (key, value, headers(message), if none { -1 } else { timestamp })
        };
        let names: Vec<_> = headers.iter().map(|(name, value)| (name.to_string_lossy(), *value)).collect();
        let headers: Vec<_> = names.iter().map(|(name, value)| (&**name, *value)).collect();
        self.builder.push(offset, RecordRef { key, value, headers: &headers, timestamp_ms });
        // What the client found behind this record it will find again.
        self.taken.end = None;
        if self.builder.n_records() >= self.records || self.builder.bytes() >= self.bytes {
            self.taken.full = true;
            self.enough();
        }
    }

    /// What is not taken stays in the queue.
    #[expect(unsafe_code, reason = "the client library has no safe call for it")]
    fn enough(&self) {
        // SAFETY: the client lives; it is for the loop that called us.
        unsafe { sys::rd_kafka_yield(self.client) }
    }
}

/// What the client says of an error: more than its code does, such as the offset of what is broken.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
unsafe fn said(message: &sys::rd_kafka_message_t) -> Option<String> {
    // SAFETY: what it returns ends in a zero byte, and lives as long as the message.
    let text = unsafe {
        let text = sys::rd_kafka_message_errstr(message);
        (!text.is_null()).then(|| CStr::from_ptr(text))
    };
    text.map(|text| text.to_string_lossy().into_owned()).filter(|text| !text.is_empty())
}

#[expect(unsafe_code, reason = "the library's records are pointers and lengths")]
unsafe fn bytes<'a>(at: *mut c_void, length: usize) -> Option<&'a [u8]> {
    // SAFETY: the caller's.
    (!at.is_null()).then(|| unsafe { std::slice::from_raw_parts(at.cast::<u8>(), length) })
}

/// The headers of a record; none, without an allocation, where it has none.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
unsafe fn headers(message: &sys::rd_kafka_message_t) -> Vec<(&CStr, Option<&[u8]>)> {
    let mut all = Vec::new();
    let mut list = ptr::null_mut();
    // SAFETY: the message lives; names end in a zero byte, values have the length that is told.
    unsafe {
        let found = sys::rd_kafka_message_headers(message, &raw mut list);
        if found != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return all;
        }
        let (mut name, mut value, mut length) = (ptr::null(), ptr::null(), 0);
        while sys::rd_kafka_header_get_all(list, all.len(), &raw mut name, &raw mut value, &raw mut length)
            == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            all.push((CStr::from_ptr(name), bytes(value.cast_mut(), length)));
        }
    }
    all
}
