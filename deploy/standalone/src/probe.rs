//! `message-center probe`: whether a URL answers with success, for images and containers without curl. Of several one
//! must: the health check of an image does not know which part runs in the container.
//!
//! Exit codes: 0 a status from 200 to 299; 1 anything else, with the reason on standard error.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use futures_util::future::join_all;
use tokio::time::timeout;

use crate::plain_http;

/// What to ask.
#[derive(Debug, Args)]
pub struct Probe {
    /// Where to ask, e.g. http://127.0.0.1:6795/readyz; of several, one must answer with success
    #[arg(value_name = "URL", required = true)]
    urls: Vec<String>,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

impl Probe {
    /// Asks.
    pub async fn run(self) -> ExitCode {
        let answers = join_all(self.urls.iter().map(|url| self.ask(url))).await;
        if answers.iter().any(Result::is_ok) {
            return ExitCode::SUCCESS;
        }
        for (url, fault) in self.urls.iter().zip(answers.into_iter().filter_map(Result::err)) {
            eprintln!("{url}: {fault:#}");
        }
        ExitCode::FAILURE
    }

    async fn ask(&self, url: &str) -> anyhow::Result<()> {
        let answer = timeout(self.deadline, plain_http::get(url)).await;
        let answer = answer
            .with_context(|| format!("no answer within {}", humantime::format_duration(self.deadline)))??;
        ensure!((200..300).contains(&answer.status), "status {}: {}", answer.status, answer.body);
        Ok(())
    }
}
