//! One token check by hand: the request, the answer, and its meaning.
//!
//! The check takes the way of a real one, but for the memory, the circuit breaker and retries.

use std::process::ExitCode;
use std::time::Duration;

use shared::ids::Group;
use shared::login::LoginConfig;
use shared::wire::Login;
use tokio::time::{Instant, timeout};

use crate::business::{Answer, Business, Failure, Received};
use crate::config::Config;
use crate::groups::IN_ANSWER;
use crate::jwt::{JwtCheck, has_form_of_jwt, is_fetch_fault};
use crate::mapping::{Decision, TokenPlace};
use crate::usable;

/// The text in place of the token.
const MASK: &str = "***";

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The token belongs to a user.
    Yes,
    /// The token is refused.
    No,
    /// Nobody knows.
    NoAnswer,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Yes => 0,
            Outcome::No => 1,
            Outcome::NoAnswer => 2,
        })
    }
}

/// The report of a check, for people. No token is in it, and no value of the answer but the user, the end of
/// the login, and the groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The outcome.
    pub outcome: Outcome,
    /// The lines of the report.
    pub text: String,
}

/// Checks a token as this configuration says.
///
/// # Errors
/// The configuration can't be used.
pub async fn run(config: &Config, login: LoginConfig, token: &str) -> anyhow::Result<Report> {
    let mode = config.mode;
    if mode.checks_jwt() && (!mode.asks_url() || has_form_of_jwt(token)) {
        by_jwt(config, login, token).await
    } else {
        by_url(config, token).await
    }
}

/// Checks a token as a JWT, with the keys as they are now.
async fn by_jwt(config: &Config, login: LoginConfig, token: &str) -> anyhow::Result<Report> {
    let url = &config.jwt.jwks_url;
    let fetched = !url.is_empty();
    let sent = if fetched { format!("GET {url}, without the token") } else { "nothing".to_owned() };
    let text = line("sent", &sent);
    let check = JwtCheck::prepare(&config.jwt, login.max_token_age, config.max_token.as_usize()).await;
    let checked = match check {
        Ok(check) => check.check(token),
        Err(error) if is_fetch_fault(&error) => {
            let text = text
                + &line("came", "no key set")
                + &line("understood", "no answer (fetch_failed)")
                + &line("", &format!("{error:#}"));
            return Ok(Report { outcome: Outcome::NoAnswer, text });
        }
        Err(error) => return Err(error),
    };
    let came = if fetched { "a key set" } else { "nothing: the keys are configured" };
    let (outcome, words) = match &checked.login {
        Some(login) => (Outcome::Yes, known(login, token)),
        None => (Outcome::No, format!("no ({})", checked.outcome)),
    };
    let mut text = text + &line("came", came) + &line("understood", &words) + &line("", &checked.words);
    if let Some(left_out) = &checked.groups_left_out {
        text += &line("", left_out);
    }
    Ok(Report { outcome, text })
}

fn known(login: &Login, token: &str) -> String {
    let left = login.expires_in_ms.map(|ms| Duration::from_millis(ms).as_secs_f64());
    good(&login.uid, left, login.groups.iter().map(String::as_str), token)
}

/// Checks a token by asking the business system, once.
async fn by_url(config: &Config, token: &str) -> anyhow::Result<Report> {
    let business = Business::new(config)?;
    if let Some(fault) = usable::fault(token, config.max_token.as_usize(), business.mapping().token()) {
        let text = format!("{}understood  no\n            {fault}\n", line("sent", "nothing"));
        return Ok(Report { outcome: Outcome::No, text });
    }
    let received = timeout(config.deadline, business.fetch(token)).await;
    let received = received.unwrap_or(Err(Failure::Slow(config.deadline)));
    let mut text = sent(config, &business);
    let decision = match received {
        Ok(received) => {
            text += &came(&business, token, &received);
            business.decide(token, &received)
        }
        Err(failure) => {
            text += &line("came", "nothing");
            Decision::failed(failure)
        }
    };
    let (outcome, words) = understood(&decision, token);
    Ok(Report { outcome, text: text + &words })
}

/// Says what is sent: method, URL, the names of the headers, and where the token stands.
fn sent(config: &Config, business: &Business) -> String {
    let mapping = business.mapping();
    let (query, own) = match mapping.token() {
        TokenPlace::Query(name) => (format!(" with {name}={MASK}"), None),
        TokenPlace::Header { name, .. } => (String::new(), Some(name.as_str())),
        TokenPlace::Json(_) | TokenPlace::Form(_) => (String::new(), Some("content-type")),
    };
    let headers: Vec<_> = config.headers.keys().map(String::as_str).chain(own).collect();
    line("sent", &format!("{} {}{query}", mapping.method().as_str(), config.url))
        + &line("", &format!("headers: {}", headers.join(", ")))
        + &line("", &format!("token in: {}", mapping.token().words()))
}

/// Says what came: the status, and the body with its values masked.
fn came(business: &Business, token: &str, received: &Received) -> String {
    let Received { status, body, .. } = received;
    let shown = match business.mapping().masked(body, token) {
        Some(masked) => masked,
        None if *status == 200 => format!("no JSON, {} bytes", body.len()),
        None => "the body does not matter with this status".to_owned(),
    };
    line("came", &format!("HTTP status {status}")) + &line("", &shown)
}

/// Says what was understood, and why.
fn understood(decision: &Decision, token: &str) -> (Outcome, String) {
    let (outcome, words) = match &decision.answer {
        Ok(answer @ Answer::Yes { .. }) => (Outcome::Yes, yes(answer, token)),
        Ok(Answer::No) => (Outcome::No, format!("no ({})", decision.outcome)),
        Err(_) => (Outcome::NoAnswer, format!("no answer ({})", decision.outcome)),
    };
    let mut text = line("understood", &words);
    if let Some(reason) = &decision.reason {
        text += &line("", reason);
    }
    if !decision.left_out.is_nothing() {
        text += &line("", &decision.left_out.words(IN_ANSWER));
    }
    (outcome, text)
}

fn yes(answer: &Answer, token: &str) -> String {
    let Answer::Yes { uid, expires, groups, .. } = answer else { return String::new() };
    let left = expires.map(|at| at.saturating_duration_since(Instant::now()).as_secs_f64());
    good(uid.as_str(), left, groups.iter().map(Group::as_str), token)
}

/// Words a yes; `left` is the time until the login ends, in seconds.
fn good<'g>(uid: &str, left: Option<f64>, groups: impl Iterator<Item = &'g str>, token: &str) -> String {
    let shown = |text: &str| if text.contains(token) { MASK.to_owned() } else { text.to_owned() };
    let end = left.map_or_else(|| "without an end".to_owned(), |left| format!("for {left:.0} s"));
    let groups: Vec<_> = groups.map(shown).collect();
    let groups = if groups.is_empty() { "none".to_owned() } else { groups.join(", ") };
    format!("yes: user {}, {end}, groups: {groups}", shown(uid))
}

fn line(head: &str, text: &str) -> String {
    format!("{head:<10}  {text}\n")
}
