//! The segment log of the embedded bus.

use std::path::Path;

use embedded_bus::shapes::{DiskLog, Message};

use crate::cells::WINDOW;
use crate::shape::{Done, Found, Store};
use crate::traffic::Batch;

struct Log {
    log: DiskLog,
    /// Time and sequence of the newest message.
    newest: (u64, u64),
}

pub fn open(folder: &Path, strict: bool, tell: &mut dyn FnMut(Found<'_>)) -> Done<(Box<dyn Store>, u64)> {
    let log = DiskLog::open(folder, strict, &mut |told| {
        let Message { seq, time, subject, headers, payload } = told;
        tell(Found { seq, time, subject, headers, payload });
    })?;
    let last = log.last_seq();
    Ok((Box::new(Log { log, newest: (0, last) }), last))
}

impl Store for Log {
    fn batch(&mut self, batch: &Batch<'_>) -> Done {
        // One message at a time, as a stream writes them.
        for message in &batch.messages {
            let (subject, headers) = (message.subject.as_bytes(), message.headers.as_bytes());
            let (seq, time, payload) = (message.seq, message.time, message.payload);
            self.log.append(Message { seq, time, subject, headers, payload })?;
            if let Some(removes) = message.removes {
                self.log.remove(&[removes])?;
            }
        }
        self.log.retain_ids_from(batch.window_from);
        self.newest = batch.messages.last().map_or(self.newest, |message| (message.time, message.seq));
        Ok(self.log.commit()?)
    }

    fn tick(&mut self, now: u64) -> Done {
        if now >= self.newest.0 + WINDOW {
            self.log.retain_ids_from(self.newest.1 + 1);
        }
        Ok(self.log.tick(now)?)
    }

    fn read(&mut self, seq: u64) -> Done<Option<usize>> {
        Ok(self.log.read(seq)?)
    }
}
