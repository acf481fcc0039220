//! The paths of one file that lead to modules of its crate, with its words alone: no types are known.
//!
//! Read are `use` lines and paths in code that begin with `crate`, `self`, `super` or the name of a
//! submodule. A path that begins with an imported name needs no reading, since its import was read.

use std::collections::BTreeSet;

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// Where a path stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    /// The path of the module below `crate`.
    module: Vec<String>,
    /// The names of its submodules.
    children: BTreeSet<String>,
}

impl Scope {
    pub(crate) fn new(module: Vec<String>) -> Self {
        Self { module, children: BTreeSet::new() }
    }
}

/// The imports of a file.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Submodules that have a file of their own.
    pub(crate) declared: Vec<Vec<String>>,
    /// Submodules that stand in this file.
    pub(crate) inline: Vec<Vec<String>>,
    /// The module that a path stands in, the path from `crate` on, and its line.
    pub(crate) paths: Vec<(Vec<String>, Vec<String>, usize)>,
}

impl Reader {
    /// Reads one nesting of tokens, and those within.
    pub(crate) fn read(&mut self, tokens: TokenStream, scope: &mut Scope) {
        let tokens: Vec<_> = tokens.into_iter().collect();
        scope.children.extend(children(&tokens));
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += match token {
                TokenTree::Punct(mark) if mark.as_char() == '#' => self.read_attribute(&tokens[at..], scope),
                TokenTree::Ident(word) if word == "mod" => self.read_module(&tokens[at..], scope),
                // How far a `pub(in …)` reaches is no import.
                TokenTree::Ident(word) if word == "pub" => 1 + usize::from(is_round(tokens.get(at + 1))),
                TokenTree::Ident(word) if word == "use" && !is_mark(tokens.get(at + 1), '<') => {
                    let rest = &tokens[at + 1..];
                    let end = rest.iter().position(|token| is_mark(Some(token), ';')).unwrap_or(rest.len());
                    self.read_use(&rest[..end], &[], scope);
                    1 + end
                }
                TokenTree::Ident(_) => self.read_path(&tokens[at..], scope),
                TokenTree::Group(group) => {
                    self.read_group(group, scope);
                    1
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => 1,
            };
        }
    }

    fn read_group(&mut self, group: &Group, scope: &Scope) {
        self.read(group.stream(), &mut scope.clone());
    }

    /// Passes over an attribute. What belongs to tests is passed over as well.
    fn read_attribute(&mut self, tokens: &[TokenTree], scope: &Scope) -> usize {
        let Some(TokenTree::Group(group)) = tokens.get(1) else { return 1 };
        if !is_test(group) {
            self.read_group(group, scope);
            return 2;
        }
        let is_end = |token: &TokenTree| match token {
            TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
            TokenTree::Punct(mark) => mark.as_char() == ';',
            TokenTree::Ident(_) | TokenTree::Literal(_) => false,
        };
        tokens.iter().position(is_end).map_or(tokens.len(), |end| end + 1)
    }

    fn read_module(&mut self, tokens: &[TokenTree], scope: &Scope) -> usize {
        let Some(TokenTree::Ident(name)) = tokens.get(1) else { return 1 };
        let module = joined(&scope.module, [name.to_string()]);
        match tokens.get(2) {
            Some(TokenTree::Group(body)) => {
                self.inline.push(module.clone());
                self.read(body.stream(), &mut Scope::new(module));
            }
            _ => self.declared.push(module),
        }
        3
    }

    /// Reads a tree of a `use` line behind what stands before its braces.
    fn read_use(&mut self, tokens: &[TokenTree], before: &[Ident], scope: &Scope) {
        let mut path = before.to_vec();
        for (at, token) in tokens.iter().enumerate() {
            match token {
                TokenTree::Ident(word) if word == "as" => break,
                TokenTree::Ident(word) => path.push(word.clone()),
                TokenTree::Group(group) => {
                    let inner: Vec<_> = group.stream().into_iter().collect();
                    for tree in inner.split(|token| is_mark(Some(token), ',')) {
                        self.read_use(tree, &path, scope);
                    }
                    return;
                }
                // A path of another crate.
                TokenTree::Punct(mark) if mark.as_char() == ':' && at == 0 => return,
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
        self.note(&path, scope);
    }

    /// Reads a path in code, and says how many tokens it takes.
    fn read_path(&mut self, tokens: &[TokenTree], scope: &Scope) -> usize {
        let mut path = Vec::new();
        let mut at = 0;
        while let Some(TokenTree::Ident(word)) = tokens.get(at) {
            path.push(word.clone());
            at += 1;
            if !(is_mark(tokens.get(at), ':') && is_mark(tokens.get(at + 1), ':')) {
                break;
            }
            at += 2;
        }
        if path.len() > 1 {
            self.note(&path, scope);
        }
        at.max(1)
    }

    /// Notes a path if it leads to this crate.
    fn note(&mut self, path: &[Ident], scope: &Scope) {
        let Some(first) = path.first() else { return };
        let mut base = scope.module.clone();
        let mut rest = path.iter().map(ToString::to_string).peekable();
        match rest.peek().map(String::as_str) {
            Some("crate") => {
                base.clear();
                rest.next();
            }
            Some("self" | "super") => {
                while let Some(word) = rest.next_if(|word| word == "self" || word == "super") {
                    if word == "super" {
                        base.pop();
                    }
                }
            }
            Some(name) if scope.children.contains(name) => {}
            _ => return,
        }
        let line = first.span().start().line;
        self.paths.push((scope.module.clone(), joined(&base, rest), line));
    }
}

/// Returns the names of the modules that are declared among these tokens.
fn children(tokens: &[TokenTree]) -> impl Iterator<Item = String> {
    tokens.windows(2).filter_map(|pair| match pair {
        [TokenTree::Ident(word), TokenTree::Ident(name)] if word == "mod" => Some(name.to_string()),
        _ => None,
    })
}

fn joined(base: &[String], rest: impl IntoIterator<Item = String>) -> Vec<String> {
    base.iter().cloned().chain(rest).collect()
}

fn is_test(attribute: &Group) -> bool {
    let mut words = attribute.stream().into_iter();
    let is_cfg = matches!(words.next(), Some(TokenTree::Ident(word)) if word == "cfg");
    is_cfg && matches!(words.next(), Some(TokenTree::Group(of)) if of.stream().to_string() == "test")
}

fn is_mark(token: Option<&TokenTree>, mark: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == mark)
}

fn is_round(token: Option<&TokenTree>) -> bool {
    matches!(token, Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Parenthesis)
}
