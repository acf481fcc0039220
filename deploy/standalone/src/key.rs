//! `message-center key`: makes keys for publishers. Reads no configuration and changes nothing.
//!
//! The secret goes to standard error and the configuration entry to standard output, so that `>> keys.toml`
//! stores the entry without the secret. A secret is printed once and stored nowhere.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use publisher_api::keys::{KeyConfig, NewKey, Place, Scope, SecretHash, check_secret};

/// The most bytes to read from standard input; a longer text is no secret.
const MOST_INPUT: u64 = 4_096;

/// The commands for keys.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a key: its secret goes to standard error, once; its configuration entry to standard output
    New(New),
    /// Read a secret from standard input, and print its hash
    Hash,
}

/// The key to make.
#[derive(Debug, Args)]
pub struct New {
    /// Name of the back end that uses the key: letters, digits, "-", "_", "."; several keys may have one name
    #[arg(long)]
    name: String,
    /// What the key permits: publish, read, disconnect, or admin for all (repeatable, or with commas)
    #[arg(long = "scope", value_name = "SCOPE", default_value = "publish", value_delimiter = ',')]
    scopes: Vec<Scope>,
    /// Channels that the key may name; * stands for any run of characters (repeatable)
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    channels: Vec<String>,
    /// Messages that the key may publish per second [default: any number]
    #[arg(long, value_name = "NUMBER")]
    rate: Option<u32>,
    /// Messages that the key may publish at once after a pause [default: as many as --rate]
    #[arg(long, value_name = "NUMBER", requires = "rate")]
    burst: Option<u32>,
    /// Print the entry in the form for publisher_api.keys_file
    #[arg(long)]
    for_file: bool,
}

/// Runs the command.
pub fn run(command: Command) -> ExitCode {
    let outcome = match command {
        Command::New(new) => make(new),
        Command::Hash => hash(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(shared::service::BAD_CONFIG)
        }
    }
}

fn make(new: New) -> Result<(), String> {
    let New { name, scopes, channels, rate, burst, for_file } = new;
    let form = if for_file { Place::File } else { Place::Config };
    let config = KeyConfig { name, hash: String::new(), scopes, channels, rate, burst };
    let name = config.name.clone();
    let key = NewKey::make(config).map_err(|problems| format!("No key was made:\n{problems}"))?;
    // The entry goes first: if it can't be written, the secret is of no use.
    print(&key.entry(form))?;
    let secret = key.secret();
    eprintln!(
        "\nThe secret of {name:?}; it is shown only now:\n\n    {secret}\n\nAs part of a URL:\n\n    \
         http://{name}:{secret}@127.0.0.1:6789/v1/mesh/publish\n"
    );
    Ok(())
}

fn hash() -> Result<(), String> {
    let mut input = Vec::new();
    let read = std::io::stdin().take(MOST_INPUT).read_to_end(&mut input);
    read.map_err(|error| format!("Standard input can't be read: {error}"))?;
    let text = String::from_utf8(input).map_err(|_| "The secret is not UTF-8.".to_owned())?;
    let secret = text.trim_end_matches(['\r', '\n']);
    check_secret(secret).map_err(|error| format!("No hash was made: {error}"))?;
    print(&format!("{}\n", SecretHash::of(secret)))
}

fn print(text: &str) -> Result<(), String> {
    let mut output = std::io::stdout();
    let written = output.write_all(text.as_bytes()).and_then(|()| output.flush());
    written.map_err(|error| format!("Standard output can't be written: {error}"))
}
