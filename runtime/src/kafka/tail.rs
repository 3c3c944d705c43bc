//! A topic of one partition, read up to where it ends, also while transactions write to it: those that are open when it
//! is asked are waited for, and what they brought is read or does not exist. It joins no group and stores no offset.

use std::time::Duration;

use rdkafka::consumer::Consumer;
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::{Offset as Place, TopicPartitionList};

use super::log::{FETCH_MS, Line, is_passing};
use super::lone::LoneConsumer;
use super::{Cluster, Error};
use crate::offset::{Offset, TopicPartition};

/// How long to wait for a record at a time.
const SILENCE: Duration = Duration::from_secs(2);

/// How often. A transaction whose process died is over after its own time, 10 s, and as long again until a broker looks.
const SILENCES: u32 = 20;

/// See the module.
pub struct Tail {
    cluster: Cluster,
    topic: String,
    /// Reads what is committed, and is told when there is nothing more of it.
    reader: LoneConsumer,
    /// Sees where the partition really ends.
    asker: LoneConsumer,
    /// Behind the last record that was read; absent before the first look.
    next: Option<Offset>,
    /// Whether the next look is to break off behind its first record.
    #[cfg(all(test, feature = "servers"))]
    pub(crate) breaks_off: bool,
}

impl std::fmt::Debug for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tail").field("topic", &self.topic).field("next", &self.next).finish_non_exhaustive()
    }
}

impl Tail {
    /// A reader of `topic`, which is there.
    ///
    /// # Errors
    /// [`Error::NoTopic`], [`Error::Unreachable`]; [`Error::Refused`], also for a topic of more partitions than one.
    pub fn open(cluster: &Cluster, topic: &str) -> Result<Self, Error> {
        let client = |isolation: &str| {
            let settings = [
                ("enable.partition.eof", "true"),
                ("fetch.wait.max.ms", FETCH_MS),
                ("isolation.level", isolation),
            ];
            cluster.lone_consumer("weir.tail", &settings)
        };
        let (reader, asker) = (client("read_committed")?, client("read_uncommitted")?);
        // Both, since one that does not know the topic yet may look for it only after a second.
        let n = cluster.partitions_by(&reader, topic)?.max(cluster.partitions_by(&asker, topic)?);
        if n != 1 {
            let text = format!("it has {n} partitions, and has to have one");
            return Err(Error::Refused { what: format!("opening topic {topic}"), text });
        }
        Ok(Self {
            cluster: cluster.clone(),
            topic: topic.to_owned(),
            reader,
            asker,
            next: None,
            #[cfg(all(test, feature = "servers"))]
            breaks_off: false,
        })
    }

    /// Hands on all records that were not read yet, up to where the topic ends now. Whatever is told to be committed
    /// before this is called is among them.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::TransactionOpen`], [`Error::Refused`]. What was handed on by then stays read.
    pub fn read_on(&mut self, each: &mut dyn FnMut(Line)) -> Result<(), Error> {
        let (first, end) = self.cluster.bounds(&self.asker, &self.topic, 0)?;
        let from = self.next.unwrap_or(first);
        if from >= end {
            return Ok(());
        }
        let read = self.read_between(from, end, each);
        // Else it went on asking a broker for what nobody takes.
        self.reader.unassign().map_err(|error| self.cluster.failed(self.what(), &error))?;
        read
    }

    fn read_between(
        &mut self,
        mut next: Offset,
        end: Offset,
        each: &mut dyn FnMut(Line),
    ) -> Result<(), Error> {
        // Whether the end that the client tells of next is behind `end`: a later look than that.
        let mut told_of_end = self.begin_at(next, end)?;
        let mut silences = 0;
        while next < end {
            match self.reader.poll(SILENCE) {
                Some(Ok(message)) => {
                    next = Offset::new(message.offset()).next();
                    let key = message.key().unwrap_or_default().to_vec();
                    each(Line { key, value: message.payload().map(<[u8]>::to_vec) });
                }
                Some(Err(KafkaError::PartitionEOF(_))) if told_of_end => next = end,
                Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) if is_passing(&error) => {}
                Some(Err(error)) => return Err(self.cluster.failed(self.what(), &error)),
                None if silences < SILENCES => {
                    silences += 1;
                    told_of_end = self.begin_again(next, end)?;
                }
                None => return Err(self.silence(end)),
            }
            // The markers of transactions are no records, and take up offsets all the same.
            next = next.max(self.position()?);
            self.next = Some(next);
            #[cfg(all(test, feature = "servers"))]
            if std::mem::take(&mut self.breaks_off) {
                return Err(self.silence(end));
            }
        }
        Ok(())
    }

    /// Where the client goes on: also behind what it does not hand on.
    fn position(&self) -> Result<Offset, Error> {
        let places = self.reader.position().map_err(|error| self.cluster.failed(self.what(), &error))?;
        Ok(match places.elements().first().map(|place| place.offset()) {
            Some(Place::Offset(next)) => Offset::new(next),
            _ => Offset::ZERO,
        })
    }

    /// There may be no record, and no marker, in front of the end: then only the client's word tells that it was
    /// reached, and that has to be one that it says from now on.
    fn begin_again(&mut self, next: Offset, end: Offset) -> Result<bool, Error> {
        let (_, stable) = self.cluster.bounds(&self.reader, &self.topic, 0)?;
        if stable < end {
            return Ok(false);
        }
        self.begin_at(next, end)
    }

    /// Tells the client where to read; whether everything in front of `end` was settled before.
    fn begin_at(&mut self, next: Offset, end: Offset) -> Result<bool, Error> {
        let (_, stable) = self.cluster.bounds(&self.reader, &self.topic, 0)?;
        let failed = |error| self.cluster.failed(self.what(), &error);
        let mut place = TopicPartitionList::new();
        place.add_partition_offset(&self.topic, 0, Place::Offset(next.get())).map_err(failed)?;
        self.reader.assign(&place).map_err(failed)?;
        self.next = Some(next);
        Ok(stable >= end)
    }

    fn what(&self) -> String {
        format!("reading topic {}", self.topic)
    }

    /// Why nothing comes that is in front of `wanted`, where the topic ended when it was begun to wait. What began behind it is
    /// only under way.
    fn silence(&self, wanted: Offset) -> Error {
        let what = self.what();
        let ends = [&self.reader, &self.asker].map(|client| self.cluster.bounds(client, &self.topic, 0));
        match ends {
            [Ok((_, since)), Ok((_, end))] if since < wanted.min(end) => {
                Error::TransactionOpen { what, at: TopicPartition::new(&*self.topic, 0), since }
            }
            [Ok(_), Ok(_)] => {
                let (address, text) = (self.cluster.address.clone(), "nothing comes".to_owned());
                Error::Unreachable { what, address, text }
            }
            [Err(error), _] | [_, Err(error)] => error,
        }
    }
}
