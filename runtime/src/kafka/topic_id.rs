//! Which cluster it is, and which topic of a name: one that is deleted and made again has another id.

use std::ffi::{CStr, CString};
use std::ptr;

use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer;

use super::{Cluster, Error, PATIENCE};

/// What a client makes of a topic without an id: 16 bytes of zero.
const NONE: &str = "AAAAAAAAAAAAAAAAAAAAAA";

impl Cluster {
    /// The id of the cluster.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`].
    pub fn id(&self) -> Result<String, Error> {
        self.asker()?.client().fetch_cluster_id(PATIENCE).ok_or_else(|| Error::Unreachable {
            what: "asking for the id of the cluster".to_owned(),
            address: self.address.clone(),
            text: format!("nothing came for {} s", PATIENCE.as_secs()),
        })
    }

    /// The id of a topic, as Kafka's tools print it (22 letters and digits).
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`], [`Error::Refused`].
    pub fn topic_id(&self, topic: &str) -> Result<String, Error> {
        let asker = self.asker()?;
        let no_topic = || Error::NoTopic { topic: topic.to_owned(), address: self.address.clone() };
        let name = CString::new(topic).map_err(|_| no_topic())?;
        match describe(asker.client().native_ptr(), &name) {
            Ok(id) if id == NONE => Err(Error::TooOld { address: self.address.clone() }),
            Ok(id) => Ok(id),
            Err(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => Err(no_topic()),
            Err(code) => {
                let error = rdkafka::error::KafkaError::AdminOp(code.into());
                Err(self.failed(format!("asking for the id of topic {topic}"), &error))
            }
        }
    }
}

/// Asks, waits for the answer, and takes the id out of it.
#[expect(unsafe_code, reason = "the client library has no safe call for it")]
fn describe(client: *mut sys::rd_kafka_t, name: &CStr) -> Result<String, sys::rd_kafka_resp_err_t> {
    let mut names = [name.as_ptr()];
    let patience = i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client lives; what is made here is destroyed here, in reverse order, and what is borrowed from the answer is
    // copied before that.
    unsafe {
        let queue = sys::rd_kafka_queue_new(client);
        let asked = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        sys::rd_kafka_AdminOptions_set_request_timeout(options, patience, ptr::null_mut(), 0);
        sys::rd_kafka_DescribeTopics(client, asked, options, queue);
        let answer = sys::rd_kafka_queue_poll(queue, patience);
        let id = if answer.is_null() {
            Err(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__TIMED_OUT)
        } else {
            id_in(answer)
        };
        if !answer.is_null() {
            sys::rd_kafka_event_destroy(answer);
        }
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(asked);
        sys::rd_kafka_queue_destroy(queue);
        id
    }
}

#[expect(unsafe_code, reason = "the client library has no safe call for it")]
unsafe fn id_in(answer: *mut sys::rd_kafka_event_t) -> Result<String, sys::rd_kafka_resp_err_t> {
    let fine = sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR;
    // SAFETY: the answer lives, and everything here is borrowed from it.
    unsafe {
        let code = sys::rd_kafka_event_error(answer);
        if code != fine {
            return Err(code);
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(answer);
        let mut n = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &raw mut n);
        if n == 0 {
            return Err(sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART);
        }
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(*topics));
        if code != fine {
            return Err(code);
        }
        let id = sys::rd_kafka_Uuid_base64str(sys::rd_kafka_TopicDescription_topic_id(*topics));
        Ok(CStr::from_ptr(id).to_string_lossy().into_owned())
    }
}
