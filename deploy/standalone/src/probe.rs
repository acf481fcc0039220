//! `message-center probe`: asks URLs, for images and containers without curl.
//!
//! Of several URLs, one must answer with success: the health check of an image does not know which part runs
//! in the container. Exit codes: 0 for a status from 200 to 299; 1 for anything else, with the reason on
//! standard error.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use futures_util::future::BoxFuture;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::plain_http;

/// The URLs to ask, and the deadline.
#[derive(Debug, Args)]
pub struct Probe {
    /// URLs to ask, e.g. http://127.0.0.1:6795/readyz; one of them must answer with success
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// How long each answer may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

impl Probe {
    /// Asks every URL at the same time.
    pub fn run(self) -> BoxFuture<'static, ExitCode> {
        // Boxed, so that only this crate compiles the code that it starts.
        Box::pin(async move {
            let answers = join_all(self.urls.iter().map(|url| self.ask(url))).await;
            if answers.iter().any(Result::is_ok) {
                return ExitCode::SUCCESS;
            }
            for (url, error) in self.urls.iter().zip(answers.into_iter().filter_map(Result::err)) {
                eprintln!("{url}: {error:#}");
            }
            ExitCode::FAILURE
        })
    }

    async fn ask(&self, url: &str) -> anyhow::Result<()> {
        let answer = timeout(self.deadline, plain_http::get(url)).await;
        let answer = answer
            .with_context(|| format!("no answer within {}", humantime::format_duration(self.deadline)))??;
        ensure!((200..300).contains(&answer.status), "status {}: {}", answer.status, answer.body);
        Ok(())
    }
}
