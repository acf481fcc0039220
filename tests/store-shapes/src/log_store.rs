//! Our segment log.

use std::path::Path;

use embedded_bus::shapes::{DiskLog, Message};

use crate::shape::{Done, Found, Store};
use crate::traffic::Batch;

struct Log(DiskLog);

pub fn open(folder: &Path, strict: bool, tell: &mut dyn FnMut(Found<'_>)) -> Done<(Box<dyn Store>, u64)> {
    let (log, last) = DiskLog::open(folder, strict, &mut |told| {
        let Message { seq, time, subject, headers, payload } = told;
        tell(Found { seq, time, subject, headers, payload });
    })?;
    Ok((Box::new(Log(log)), last))
}

impl Store for Log {
    fn batch(&mut self, batch: &Batch<'_>) -> Done {
        // One by one, as a stream does.
        for message in &batch.messages {
            let (subject, headers) = (message.subject.as_bytes(), message.headers.as_bytes());
            let (seq, time, payload) = (message.seq, message.time, message.payload);
            self.0.append(Message { seq, time, subject, headers, payload })?;
            if let Some(removes) = message.removes {
                self.0.remove(&[removes])?;
            }
        }
        self.0.keep_ids_from(batch.window_from);
        Ok(self.0.commit()?)
    }

    fn tick(&mut self, now: u64) -> Done {
        Ok(self.0.tick(now)?)
    }

    fn read(&mut self, seq: u64) -> Done<Option<usize>> {
        Ok(self.0.read(seq)?)
    }
}
