//! `message-center login-test`: one token check, with everything that an operator may see of it.

use std::io::{BufRead as _, Read as _, Write as _};
use std::process::ExitCode;

use anyhow::Context as _;
use auth_adapter::{Settings, login_test};
use clap::Args;
use shared::service::{self, BAD_CONFIG, CommonArgs};

/// The most bytes that are read as a token; more than any configuration allows.
const MAX_LINE: u64 = 1 << 20;

/// The flags of `login-test`.
#[derive(Debug, Args)]
pub struct LoginTest {
    #[command(flatten)]
    common: CommonArgs,
    /// Your business system's token check, e.g. http://127.0.0.1:8000/websocket_auth
    #[arg(long, value_name = "URL")]
    auth_url: Option<String>,
    /// The token to ask about; - reads it from the first line of standard input, where nobody else sees it
    #[arg(long, value_name = "TOKEN", default_value = "-", allow_hyphen_values = true)]
    token: Token,
}

/// A token on the command line. No `Debug` shows it.
#[derive(Clone)]
struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self(token)
    }
}

impl LoginTest {
    /// Asks once, and prints what was sent, what came and what was understood.
    pub async fn run(self) -> ExitCode {
        let flags = self.auth_url.map(|url| ("auth_adapter.url".to_owned(), url)).into_iter().collect();
        let settings: Settings = match service::settings(self.common, flags) {
            Ok(settings) => settings,
            Err(code) => return code,
        };
        let report = match self.token.read() {
            Ok(token) => login_test::run(&settings.auth_adapter, settings.login, &token).await,
            Err(error) => Err(error),
        };
        match report {
            Ok(report) => {
                // A closed standard output is no error: the exit code says it all.
                let _ = std::io::stdout().write_all(report.text.as_bytes());
                report.outcome.into()
            }
            Err(error) => {
                eprintln!("The login can't be tested: {error:#}");
                ExitCode::from(BAD_CONFIG)
            }
        }
    }
}

impl Token {
    /// Returns the token, from the command line or from standard input.
    fn read(self) -> anyhow::Result<String> {
        let Self(token) = self;
        let token = if token == "-" { first_line()? } else { token };
        anyhow::ensure!(
            !token.is_empty(),
            "there is no token: write one line to standard input, or use --token"
        );
        Ok(token)
    }
}

fn first_line() -> anyhow::Result<String> {
    let mut line = String::new();
    let input = std::io::stdin().lock();
    input.take(MAX_LINE).read_line(&mut line).context("standard input can't be read")?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
