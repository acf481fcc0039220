//! `message-center probe`: whether a URL answers with success, for images and containers without curl.
//!
//! Exit codes: 0 a status from 200 to 299; 1 anything else, with the reason on standard error.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::Args;
use tokio::time::timeout;

use crate::plain_http;

/// What to ask.
#[derive(Debug, Args)]
pub struct Probe {
    /// Where to ask, e.g. http://127.0.0.1:6795/readyz
    url: String,
    /// How long the answer may take
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = humantime::parse_duration)]
    deadline: Duration,
}

impl Probe {
    /// Asks.
    pub async fn run(self) -> ExitCode {
        match self.ask().await {
            Ok(()) => ExitCode::SUCCESS,
            Err(fault) => {
                eprintln!("{}: {fault:#}", self.url);
                ExitCode::FAILURE
            }
        }
    }

    async fn ask(&self) -> anyhow::Result<()> {
        let answer = timeout(self.deadline, plain_http::get(&self.url)).await;
        let answer = answer
            .with_context(|| format!("no answer within {}", humantime::format_duration(self.deadline)))??;
        ensure!((200..300).contains(&answer.status), "status {}: {}", answer.status, answer.body);
        Ok(())
    }
}
