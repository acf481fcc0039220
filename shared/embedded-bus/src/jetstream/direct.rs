//! Direct reads: one stored message or many, sent as messages and not as JSON.
//!
//! A batch is answered with its messages and a closing `204 EOB` that says how many are left; without a match
//! the answer is one `404`. The pending count of a message counts the matches behind it. Source: NATS ADR-31,
//! and captured answers of nats-server.

use bytes::Bytes;
use serde::Deserialize;

use super::state::Filter;
use super::stream::Stream;
use super::time;
use crate::headers::{self, Extended};
use crate::storage::Record;

/// Subjects whose last messages one request may ask for.
const MOST_SUBJECTS: usize = 1024;

/// The body of a request for messages.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GetRequest {
    seq: Option<u64>,
    last_by_subj: Option<String>,
    next_by_subj: Option<String>,
    batch: Option<i64>,
    max_bytes: Option<i64>,
    start_time: Option<String>,
    multi_last: Option<Vec<String>>,
    up_to_seq: Option<u64>,
    up_to_time: Option<String>,
    no_hdr: Option<bool>,
}

/// Why a request can't be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestError {
    Empty,
    Bad,
    Malformed,
}

impl RequestError {
    fn text(self) -> &'static str {
        match self {
            Self::Empty => "408 Empty Request",
            Self::Bad => "408 Bad Request",
            Self::Malformed => "408 Malformed Request",
        }
    }
}

/// One message of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) headers: Vec<u8>,
    pub(crate) payload: Bytes,
}

impl Answer {
    /// An answer that is only a status.
    fn status(text: &str) -> Self {
        Self { headers: headers::status(text), payload: Bytes::new() }
    }
}

impl GetRequest {
    fn seq(&self) -> u64 {
        self.seq.unwrap_or(0)
    }

    fn last(&self) -> Option<&str> {
        self.last_by_subj.as_deref().filter(|subject| !subject.is_empty())
    }

    fn next(&self) -> Option<&str> {
        self.next_by_subj.as_deref().filter(|subject| !subject.is_empty())
    }

    fn subjects(&self) -> &[String] {
        self.multi_last.as_deref().unwrap_or_default()
    }

    fn batch(&self) -> i64 {
        self.batch.unwrap_or(0)
    }

    /// Whether the headers of the messages are wanted.
    pub(crate) fn wants_headers(&self) -> bool {
        self.no_hdr != Some(true)
    }

    fn is_empty(&self) -> bool {
        self.seq() == 0
            && self.last().is_none()
            && self.next().is_none()
            && self.subjects().is_empty()
            && self.start_time.is_none()
    }

    /// Whether fields of the request exclude each other.
    fn contradicts_itself(&self) -> bool {
        let with_last =
            self.seq() > 0 || self.next().is_some() || self.start_time.is_some() || self.batch() > 0;
        let with_many = self.last().is_some() || self.next().is_some();
        (self.last().is_some() && with_last)
            || (!self.subjects().is_empty() && with_many)
            || (self.seq() > 0 && self.start_time.is_some())
    }

    /// Whether the request clearly asks for one message.
    pub(crate) fn asks_for_one(&self) -> bool {
        !self.is_empty() && !self.contradicts_itself() && self.batch() == 0 && self.subjects().is_empty()
    }

    /// Returns the sequence to begin with, by sequence or by time; `None` if no message is that young.
    fn begin(&self, stream: &Stream) -> Result<Option<u64>, RequestError> {
        match &self.start_time {
            None => Ok(Some(self.seq())),
            Some(text) => {
                let time = time::parse(text).ok_or(RequestError::Malformed)?;
                Ok(stream.state.first_at(stream.steady(time)))
            }
        }
    }

    /// Returns the sequence of the one message that the request asks for.
    pub(crate) fn find_one(&self, stream: &Stream) -> Result<Option<u64>, RequestError> {
        let state = &stream.state;
        if let Some(subject) = self.last() {
            return Ok(state.last_of(Filter::new(subject)));
        }
        let Some(begin) = self.begin(stream)? else { return Ok(None) };
        Ok(match self.next() {
            Some(subject) => state.next_of(Filter::new(subject), begin),
            None => state.get(begin).map(|meta| meta.seq),
        })
    }

    /// Returns the sequence up to which a request for last messages looks.
    fn up_to(&self, stream: &Stream) -> Result<u64, RequestError> {
        let state = &stream.state;
        match (&self.up_to_time, self.up_to_seq.unwrap_or(0)) {
            (Some(_), 1..) => Err(RequestError::Bad),
            (None, 0) => Ok(state.last_seq()),
            (None, seq) => Ok(seq),
            (Some(text), 0) => {
                let time = time::parse(text).ok_or(RequestError::Malformed)?;
                Ok(match state.first_at(stream.steady(time).saturating_add(1)) {
                    Some(beyond) => beyond.saturating_sub(1),
                    None => state.last_seq(),
                })
            }
        }
    }

    /// Returns the bytes that an answer may have before its last message.
    fn max_bytes(&self, bound: usize) -> usize {
        let asked = usize::try_from(self.max_bytes.unwrap_or(0)).unwrap_or(0);
        if asked == 0 { bound } else { asked.min(bound) }
    }
}

/// Answers a direct read. `last_of` is a subject that came as part of the request's own subject. `bound`
/// limits the bytes of the answer.
pub(crate) fn answer(stream: &mut Stream, last_of: Option<&[u8]>, body: &[u8], bound: usize) -> Vec<Answer> {
    match try_answer(stream, last_of, body, bound) {
        Ok(answers) => answers,
        Err(error) => vec![Answer::status(error.text())],
    }
}

fn try_answer(
    stream: &mut Stream,
    last_of: Option<&[u8]>,
    body: &[u8],
    bound: usize,
) -> Result<Vec<Answer>, RequestError> {
    let mut request = match body.trim_ascii() {
        b"" if last_of.is_none() => return Err(RequestError::Empty),
        b"" | b"null" => GetRequest::default(),
        [b'[', ..] => return Err(RequestError::Malformed),
        body => serde_json::from_slice(body).map_err(|_| RequestError::Malformed)?,
    };
    if let Some(subject) = last_of {
        if request.last().is_some() {
            return Err(RequestError::Bad);
        }
        request.last_by_subj = Some(String::from_utf8_lossy(subject).into_owned());
    }
    if request.is_empty() {
        return Err(RequestError::Empty);
    }
    if request.contradicts_itself() {
        return Err(RequestError::Bad);
    }
    if !request.subjects().is_empty() {
        return last_of_each(stream, &request, bound);
    }
    if request.batch() != 0 {
        return batch(stream, &request, bound);
    }
    let found = request.find_one(stream)?;
    Ok(vec![match read(stream, found) {
        Some(record) => Answer {
            headers: header_block(&stream.name, &record, request.wants_headers()).end(),
            payload: record.payload,
        },
        None => Answer::status("404 Message Not Found"),
    }])
}

fn batch(stream: &mut Stream, request: &GetRequest, bound: usize) -> Result<Vec<Answer>, RequestError> {
    let filter = request.next().map_or(Filter::All, Filter::new);
    let begin = request.begin(stream)?;
    let Some(first) = begin.and_then(|begin| stream.state.next_of(filter, begin)) else {
        return Ok(vec![Answer::status("404 Message Not Found")]);
    };
    let pending = stream.state.count_from(filter, first);
    let most = usize::try_from(request.batch()).unwrap_or(0);
    let mut next = Some(first);
    let mut answers = Answers::new(pending, request, bound);
    for _ in 0..most {
        let Some(seq) = next.filter(|_| !answers.is_full()) else { break };
        if !answers.add(stream, seq) {
            return Ok(answers.break_off());
        }
        next = stream.state.next_of(filter, seq + 1);
    }
    Ok(answers.end(None))
}

fn last_of_each(
    stream: &mut Stream,
    request: &GetRequest,
    bound: usize,
) -> Result<Vec<Answer>, RequestError> {
    let up_to = request.up_to(stream)?;
    let filters: Vec<Filter<'_>> = request.subjects().iter().map(|subject| Filter::new(subject)).collect();
    let Some(mut seqs) = stream.state.last_of_each(&filters, up_to, MOST_SUBJECTS) else {
        return Ok(vec![Answer::status("413 Too Many Results")]);
    };
    if seqs.is_empty() {
        return Ok(vec![Answer::status("404 No Results")]);
    }
    seqs.retain(|seq| *seq >= request.seq());
    let mut answers = Answers::new(seqs.len() as u64, request, bound);
    let most = usize::try_from(request.batch()).ok().filter(|most| *most > 0).unwrap_or(usize::MAX);
    for seq in seqs.into_iter().take(most) {
        if answers.is_full() {
            break;
        }
        if !answers.add(stream, seq) {
            return Ok(answers.break_off());
        }
    }
    Ok(answers.end(Some(up_to)))
}

/// The messages of a batch.
struct Answers {
    messages: Vec<Answer>,
    pending: u64,
    last: u64,
    bytes: usize,
    max_bytes: usize,
    with_headers: bool,
}

impl Answers {
    fn new(pending: u64, request: &GetRequest, bound: usize) -> Self {
        let (max_bytes, with_headers) = (request.max_bytes(bound), request.wants_headers());
        Self { messages: Vec::new(), pending, last: 0, bytes: 0, max_bytes, with_headers }
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.max_bytes
    }

    /// Adds a message. Returns false if it can't be read.
    fn add(&mut self, stream: &mut Stream, seq: u64) -> bool {
        let Some(record) = read(stream, Some(seq)) else { return false };
        self.pending = self.pending.saturating_sub(1);
        self.bytes += record.subject.len() + record.headers.len() + record.payload.len();
        let block = header_block(&stream.name, &record, self.with_headers)
            .number("Nats-Num-Pending", self.pending)
            .number("Nats-Last-Sequence", self.last);
        self.last = seq;
        self.messages.push(Answer { headers: block.end(), payload: record.payload });
        true
    }

    /// Ends the answer at a message that can't be read, as nats-server does, so that nobody takes the answer
    /// for a complete one.
    fn break_off(mut self) -> Vec<Answer> {
        self.messages.push(Answer::status("404 Message Not Found"));
        self.messages
    }

    fn end(mut self, up_to: Option<u64>) -> Vec<Answer> {
        let mut block = Extended::status("204 EOB")
            .number("Nats-Num-Pending", self.pending)
            .number("Nats-Last-Sequence", self.last);
        if let Some(up_to) = up_to {
            block = block.number("Nats-UpTo-Sequence", up_to);
        }
        self.messages.push(Answer { headers: block.end(), payload: Bytes::new() });
        self.messages
    }
}

/// Reads a message. One that can't be read counts as gone; the stream knows that its store failed, and turns
/// the answer into an error when it settles.
fn read(stream: &mut Stream, seq: Option<u64>) -> Option<Record> {
    stream.read(seq?).unwrap_or(None)
}

fn header_block(stream: &str, record: &Record, with_own: bool) -> Extended {
    Extended::of(if with_own { &record.headers } else { &[] })
        .line("Nats-Stream", stream)
        .line("Nats-Subject", &record.subject)
        .number("Nats-Sequence", record.seq)
        .line("Nats-Time-Stamp", time::format(record.time))
}
