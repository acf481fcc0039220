//! The problems of a configuration, each with its key.

use std::fmt;
use std::net::SocketAddr;

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The dotted key, variable or file name.
    pub key: String,
    /// The problem, and what to do about it.
    pub fault: String,
}

/// A list of problems, printed as a line each.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Adds a problem, unless another part of the process added the same.
    pub fn add(&mut self, key: impl Into<String>, fault: impl Into<String>) {
        let problem = Problem { key: key.into(), fault: fault.into() };
        if !self.0.contains(&problem) {
            self.0.push(problem);
        }
    }

    /// Adds a problem unless `holds`.
    pub fn check(&mut self, holds: bool, key: &str, fault: impl FnOnce() -> String) {
        if !holds {
            self.add(key, fault());
        }
    }

    /// Adds a problem for each key that would listen where another key listens. `None`: the key listens
    /// nowhere.
    pub fn check_ports<const N: usize>(&mut self, listens: [(&str, Option<SocketAddr>); N]) {
        let listens: Vec<_> = listens.into_iter().filter_map(|(key, at)| Some((key, at?))).collect();
        for (place, (key, address)) in listens.iter().enumerate() {
            let meet = |other: &SocketAddr| {
                let everywhere = other.ip().is_unspecified() || address.ip().is_unspecified();
                address.port() != 0
                    && other.port() == address.port()
                    && (everywhere || other.ip() == address.ip())
            };
            if let Some((taken, _)) = listens[..place].iter().find(|(_, other)| meet(other)) {
                self.add(*key, format!("{address} is where {taken} listens already; choose another port"));
            }
        }
    }

    /// Adds the problems of a part.
    pub fn extend(&mut self, other: Self) {
        for Problem { key, fault } in other.0 {
            self.add(key, fault);
        }
    }

    /// Returns the number of problems.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is no problem.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the value if there is no problem.
    ///
    /// # Errors
    /// The list, unless it is empty.
    pub fn into_result<T>(self, value: T) -> Result<T, Self> {
        if self.0.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{}: {}", problem.key, problem.fault)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}
