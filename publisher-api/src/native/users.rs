//! Asks for the sessions of users, disconnects a user, and has a user renew its logins.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use axum::response::Response;
use humantime_serde::re::humantime;
use serde::Deserialize;
use shared::clock;
use shared::ids::{Channel, NameError, Uid};
use shared::wire::{Command, StoredAt};
use utoipa::ToSchema;

use super::answer::{
    DisconnectAnswer, EdgeClosed, EdgeRefreshed, EdgeSessions, EdgesAnswer, EntryError, ManySessionsAnswer,
    RefreshAnswer, SessionsAnswer, UserResult, UserSessions,
};
use super::body;
use super::limits::MAX_USERS;
use super::respond::respond;
use super::target::{Entries, echo, user};
use crate::app::App;
use crate::control::Gathered;
use crate::error::Refusal;
use crate::http::ROUTED;
use crate::keys::Caller;

/// The longest time for which a user may be banned.
const MAX_DENY: Duration = Duration::from_secs(30 * 24 * 3600);
/// The longest reason of a close frame, in bytes.
const MAX_REASON: usize = 123;
/// The last time with a year of four digits, in milliseconds since 1970.
const LAST_TIME: u64 = 253_402_300_799_999;
const USERS: &str = r#"{"users":[1001,"bob"]}"#;
const DISCONNECT: &str = r#"{"reason":"signed out everywhere","deny_for":"10m"}"#;

/// A question about several users.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Users)]
pub(super) struct Users<'a> {
    /// The users, as integers or strings; from 1 to 1,000.
    #[serde(borrow)]
    #[schema(value_type = Vec<super::target::UserId>, min_items = 1, max_items = 1_000, example = json!([1001, "bob"]))]
    users: Entries<'a>,
}

/// The close reason and the ban of a disconnect.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Disconnect)]
pub(super) struct Disconnect {
    /// The reason that the close frame gives; at most 123 bytes without control characters.
    #[serde(default)]
    #[schema(example = "signed out everywhere")]
    reason: Option<String>,
    /// The time for which logins of the user are refused, like `10m` or `2h 30m`; at most `30d`. `0s` ends a
    /// ban. If left out, bans do not change.
    #[serde(default)]
    #[schema(example = "10m")]
    deny_for: Option<String>,
}

impl Disconnect {
    pub(super) fn parse(json: &[u8]) -> Result<(Option<String>, Option<Duration>), Refusal> {
        let Self { reason, deny_for } = body::parse(json, DISCONNECT)?;
        if reason.as_ref().is_some_and(|text| text.len() > MAX_REASON || text.chars().any(char::is_control)) {
            return Err(Refusal::Native("\"reason\" must be at most 123 bytes without control characters"));
        }
        let deny_for = match deny_for.as_deref().map(humantime::parse_duration) {
            None => None,
            Some(Ok(time)) if time <= MAX_DENY => Some(time),
            Some(Ok(_) | Err(_)) => {
                return Err(Refusal::Native(
                    "\"deny_for\" must be a time like \"10m\" or \"2h 30m\", at most \"30d\"; \"0s\" lets the user in again",
                ));
            }
        };
        Ok((reason.filter(|text| !text.is_empty()), deny_for))
    }
}

#[utoipa::path(
    get, path = ROUTED, operation_id = "sessionsOfUser", tag = "users",
    params(("uid" = String, Path, description = "The user's id, percent-encoded.", example = "1001")),
    responses((status = 200, description = "The sessions of the user.", body = SessionsAnswer))
)]
/// Lists the sessions of a user: how many, on which edges, and since when.
///
/// Needs the scope `read`, and a key that may use the user's channel.
pub(crate) async fn sessions(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let outcome = async {
        let uid = named(path, &caller)?;
        let command = Command::Sessions { users: vec![uid.as_str().to_owned()] };
        let gathered = app.control.ask(&caller, command, 1).await?;
        Ok(SessionsAnswer {
            user: found(&uid, 0, &gathered),
            edges: EdgesAnswer::new(gathered.expected, &gathered.missing),
            complete: gathered.complete,
        })
    };
    respond(&app, outcome.await)
}

#[utoipa::path(
    post, path = ROUTED, operation_id = "sessionsOfUsers", tag = "users",
    request_body(content = Users<'_>),
    responses((status = 200, description = "The sessions of each user.", body = ManySessionsAnswer))
)]
/// Lists the sessions of up to 1,000 users.
///
/// Needs the scope `read`. A user whose channel the key may not use is refused alone; the others are
/// answered.
pub(crate) async fn sessions_of_many(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let ((), body) = body::read(&app, &headers, body, Ok(())).await?;
        let named = read_users(&body)?;
        let users: Vec<_> = named.into_iter().map(|(name, uid)| (name, permitted(uid, &caller))).collect();
        let asked: Vec<Uid> = users.iter().filter_map(|(_, uid)| uid.as_ref().ok().cloned()).collect();
        let gathered = if asked.is_empty() {
            Gathered { complete: true, ..Gathered::default() }
        } else {
            let names = asked.iter().map(|uid| uid.as_str().to_owned()).collect();
            app.control.ask(&caller, Command::Sessions { users: names }, asked.len()).await?
        };
        let mut index = 0;
        let results = users.into_iter().map(|(name, uid)| match uid {
            Ok(uid) => {
                index += 1;
                UserResult::Found(found(&uid, index - 1, &gathered))
            }
            Err(refusal) => UserResult::Refused { user: name, error: EntryError::of(&refusal) },
        });
        Ok(ManySessionsAnswer {
            users: results.collect(),
            edges: EdgesAnswer::new(gathered.expected, &gathered.missing),
            complete: gathered.complete,
        })
    };
    respond(&app, outcome.await)
}

#[utoipa::path(
    post, path = ROUTED, operation_id = "disconnect", tag = "users",
    params(("uid" = String, Path, description = "The user's id, percent-encoded.", example = "1001")),
    request_body(content = Disconnect),
    responses((status = 200, description = "The outcome.", body = DisconnectAnswer))
)]
/// Closes every session of a user with 4410, and can ban the user for a while.
///
/// A ban refuses all logins of the user, including logins under way. The ban is stored before any edge hears
/// of it, and every edge reads the stored bans before it accepts clients, so an edge that starts later
/// applies the ban too. `deny_for` "0s" ends the ban. Needs the scope `disconnect`, and a key that may use
/// the user's channel.
pub(crate) async fn disconnect(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let outcome = async {
        let (uid, body) = body::read(&app, &headers, body, named(path, &caller)).await?;
        let (reason, deny_for) = Disconnect::parse(&body)?;
        let milliseconds = deny_for.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let users = vec![uid.as_str().to_owned()];
        // Stored first: an edge that does not hear the command reads the ban there.
        let stored = match deny_for {
            Some(time) => Some(app.control.deny(&caller, &uid, reason.as_deref(), time).await?),
            None => None,
        };
        let command = Command::Disconnect { users, reason, deny_for_ms: milliseconds, stored };
        let gathered = app.control.ask(&caller, command, 1).await?;
        tracing::info!(
            key = caller.name(),
            ?deny_for,
            complete = gathered.complete,
            "a user was disconnected"
        );
        Ok(closed(&uid, &gathered, stored))
    };
    respond(&app, outcome.await)
}

#[utoipa::path(
    post, path = ROUTED, operation_id = "refresh", tag = "users",
    params(("uid" = String, Path, description = "The user's id, percent-encoded.", example = "1001")),
    responses((status = 200, description = "The outcome.", body = RefreshAnswer))
)]
/// Has every session of a user renew its login, as when a login expires.
///
/// Call this after the user's groups have changed. Each session gets error 9 and the time of an expired login
/// to send `auth`; until then its messages are held back. No answer that the business system gave earlier
/// counts for these logins, and none for logins that were under way. Needs the scope `disconnect`, and a key
/// that may use the user's channel.
pub(crate) async fn refresh(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let outcome = async {
        let uid = named(path, &caller)?;
        let users = vec![uid.as_str().to_owned()];
        let command = Command::Refresh { users, newer_than_ms: clock::unix_ms() };
        let gathered = app.control.ask(&caller, command, 1).await?;
        tracing::info!(key = caller.name(), complete = gathered.complete, "a user has to log in anew");
        Ok(refreshed(&uid, &gathered))
    };
    respond(&app, outcome.await)
}

/// Returns the user that a path names, if the caller may use the user's channel.
fn named(path: Result<Path<String>, PathRejection>, caller: &Caller) -> Result<Uid, Refusal> {
    let Path(text) = path.map_err(|_| Refusal::BadUser(NameError::Character))?;
    permitted(Uid::parse(&text).map_err(Refusal::BadUser), caller)
}

fn permitted(uid: Result<Uid, Refusal>, caller: &Caller) -> Result<Uid, Refusal> {
    let uid = uid?;
    caller.require_channel(&Channel::of_user(&uid))?;
    Ok(uid)
}

/// An entry of a question, and the user it names.
type Named = (String, Result<Uid, Refusal>);

/// Reads a question about users.
pub(super) fn read_users(json: &[u8]) -> Result<Vec<Named>, Refusal> {
    let Users { users } = body::parse(json, USERS)?;
    match users.0.len() {
        0 => Err(Refusal::Native("\"users\" is empty; give at least one user")),
        many if many > MAX_USERS => Err(Refusal::TooLong { what: "users", limit: MAX_USERS }),
        _ => Ok(users.0.into_iter().map(|entry| (echo(entry), user(entry))).collect()),
    }
}

/// Adds up the sessions of a user over all edges. `index`: the index of the user in the question.
fn found(uid: &Uid, index: usize, gathered: &Gathered) -> UserSessions {
    let on = gathered.answers.iter().filter_map(|(edge, users)| {
        let answer = users.get(index).filter(|answer| answer.sessions > 0)?;
        let since = answer.since.iter().map(|time| rfc3339(*time)).collect();
        Some(EdgeSessions { edge: edge.as_str().to_owned(), sessions: answer.sessions, since })
    });
    let mut on: Vec<EdgeSessions> = on.collect();
    on.sort_by(|one, other| one.edge.cmp(&other.edge));
    let sessions = on.iter().map(|edge| edge.sessions).sum();
    UserSessions { user: uid.as_str().to_owned(), online: sessions > 0, sessions, on }
}

/// Returns the edges that had a session of the one user of a command, by name, each with the number.
fn edges_with_sessions(gathered: &Gathered) -> Vec<(String, u64)> {
    let answers = gathered.answers.iter().filter_map(|(edge, users)| Some((edge, users.first()?)));
    let mut on: Vec<_> = answers
        .filter(|(_, answer)| answer.sessions > 0)
        .map(|(edge, answer)| (edge.as_str().to_owned(), answer.sessions))
        .collect();
    on.sort();
    on
}

fn refreshed(uid: &Uid, gathered: &Gathered) -> RefreshAnswer {
    let on = edges_with_sessions(gathered).into_iter();
    let on: Vec<_> = on.map(|(edge, sessions)| EdgeRefreshed { edge, sessions }).collect();
    RefreshAnswer {
        user: uid.as_str().to_owned(),
        sessions: on.iter().map(|edge| edge.sessions).sum(),
        on,
        edges: EdgesAnswer::new(gathered.expected, &gathered.missing),
        complete: gathered.complete,
    }
}

fn closed(uid: &Uid, gathered: &Gathered, stored: Option<StoredAt>) -> DisconnectAnswer {
    let on = edges_with_sessions(gathered).into_iter();
    let on: Vec<_> = on.map(|(edge, closed)| EdgeClosed { edge, closed }).collect();
    let mut denials = gathered.answers.iter().filter_map(|(_, users)| users.first());
    DisconnectAnswer {
        user: uid.as_str().to_owned(),
        closed: on.iter().map(|edge| edge.closed).sum(),
        on,
        denied: stored.is_some_and(|stored| stored.until_ms > 0) && denials.all(|answer| answer.denied),
        edges: EdgesAnswer::new(gathered.expected, &gathered.missing),
        complete: gathered.complete,
    }
}

fn rfc3339(unix_ms: u64) -> String {
    let time: SystemTime = UNIX_EPOCH + Duration::from_millis(unix_ms.min(LAST_TIME));
    humantime::format_rfc3339_millis(time).to_string()
}
