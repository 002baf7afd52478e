// SPDX-License-Identifier: GPL-2.0-or-later

//! Reads options one after the other as popt does, which ipvsadm uses: in the order given, repeated as often as given,
//! errors only once they are reached. clap reports on the whole command line at once, so of clap this uses the
//! definition only.

use clap::{Arg, Command};

/// One option as it comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// Its long name.
    pub(crate) name: String,
    /// Its value, if it takes one; an optional one may be missing.
    pub(crate) value: Option<String>,
}

/// What popt complains of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Complaint {
    Unknown,
    MissingValue,
    UnwantedValue,
}

impl Complaint {
    /// popt's text.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Unknown => "unknown option (-h lists those that there are)",
            Self::MissingValue => "missing argument",
            Self::UnwantedValue => "option does not take an argument",
        }
    }
}

/// Where the reading is.
pub(crate) struct Popt<'a> {
    options: &'a Command,
    args: &'a [String],
    next: usize,
    /// A letter that stands for another option than the definition's.
    instead: Option<(char, &'static str)>,
    /// What is left of a group of short options.
    group: Option<&'a str>,
    /// What an option whose value was missing would have.
    wanted: Option<String>,
    /// After `--`.
    only_rest: bool,
    rest: Vec<String>,
}

impl<'a> Popt<'a> {
    /// Reads `args`, without the program's name.
    pub(crate) fn new(options: &'a Command, args: &'a [String]) -> Self {
        Self {
            options,
            args,
            next: 0,
            instead: None,
            group: None,
            wanted: None,
            only_rest: false,
            rest: Vec::new(),
        }
    }

    /// From here on, a letter stands for the option of this long name, if the definition has that.
    pub(crate) fn instead(&mut self, letter: char, name: &'static str) {
        self.instead = Some((letter, name));
    }

    /// The argument that was read last, which errors name.
    pub(crate) fn last(&self) -> &'a str {
        self.next
            .checked_sub(1)
            .and_then(|at| self.args.get(at))
            .map_or("", String::as_str)
    }

    /// What would be right where something was complained of, if that can be said.
    pub(crate) fn wanted(&self) -> Option<&str> {
        self.wanted.as_deref()
    }

    /// The arguments that are not options.
    pub(crate) fn rest(self) -> std::vec::IntoIter<String> {
        self.rest.into_iter()
    }

    fn long(&self, name: &str) -> Option<&'a Arg> {
        self.options.get_arguments().find(|a| {
            a.get_long() == Some(name) || a.get_all_aliases().is_some_and(|all| all.contains(&name))
        })
    }

    fn short(&self, letter: char) -> Option<&'a Arg> {
        let other = self.instead.filter(|(instead, _)| *instead == letter);
        if let Some(arg) = other.and_then(|(_, name)| self.long(name)) {
            return Some(arg);
        }
        self.options.get_arguments().find(|a| {
            a.get_short() == Some(letter)
                || a.get_all_short_aliases()
                    .is_some_and(|all| all.contains(&letter))
        })
    }

    /// The next option, `None` at the end.
    pub(crate) fn option(&mut self) -> Option<Result<Given, Complaint>> {
        let (arg, glued) = match self.group.take() {
            Some(group) => match self.of_group(group) {
                Ok(found) => found,
                Err(complaint) => return Some(Err(complaint)),
            },
            None => loop {
                let word = self.args.get(self.next)?.as_str();
                self.next += 1;
                let body = match word.strip_prefix('-') {
                    Some(body) if !body.is_empty() && !self.only_rest => body,
                    _ => {
                        self.rest.push(word.to_owned());
                        // As POSIX wants it: the first argument ends the options.
                        self.only_rest |= ["POSIXLY_CORRECT", "POSIX_ME_HARDER"]
                            .iter()
                            .any(|name| std::env::var_os(name).is_some());
                        continue;
                    }
                };
                match body.strip_prefix('-') {
                    Some("") => self.only_rest = true,
                    Some(long) => {
                        let (name, glued) = match long.split_once('=') {
                            Some((name, value)) => (name, Some(value)),
                            None => (long, None),
                        };
                        match self.long(name) {
                            Some(arg) => break (arg, glued),
                            None => return Some(Err(Complaint::Unknown)),
                        }
                    }
                    None => match self.of_group(body) {
                        Ok(found) => break found,
                        Err(complaint) => return Some(Err(complaint)),
                    },
                }
            },
        };
        Some(self.complete(arg, glued))
    }

    /// The first option of a group of short ones, with what is glued to it.
    fn of_group(&mut self, group: &'a str) -> Result<(&'a Arg, Option<&'a str>), Complaint> {
        let mut letters = group.chars();
        let arg = letters
            .next()
            .and_then(|letter| self.short(letter))
            .ok_or(Complaint::Unknown)?;
        let rest = letters.as_str();
        if rest.is_empty() {
            return Ok((arg, None));
        }
        if arg.get_action().takes_values() {
            return Ok((arg, Some(rest.strip_prefix('=').unwrap_or(rest))));
        }
        if rest.starts_with('=') {
            return Err(Complaint::UnwantedValue);
        }
        self.group = Some(rest);
        Ok((arg, None))
    }

    fn complete(&mut self, arg: &Arg, glued: Option<&str>) -> Result<Given, Complaint> {
        let name = arg.get_id().to_string();
        if !arg.get_action().takes_values() {
            return match glued {
                Some(_) => {
                    self.wanted = Some(format!("--{name}"));
                    Err(Complaint::UnwantedValue)
                }
                None => Ok(Given { name, value: None }),
            };
        }
        if let Some(value) = glued {
            return Ok(Given {
                name,
                value: Some(value.to_owned()),
            });
        }
        let optional = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
        let value = match self.args.get(self.next) {
            Some(word) if !(optional && word.starts_with('-')) => {
                self.next += 1;
                Some(word.clone())
            }
            None if !optional => {
                let value = arg.get_value_names().and_then(<[_]>::first);
                self.wanted = value.map(|value| format!("--{name} {value}"));
                return Err(Complaint::MissingValue);
            }
            _ => None,
        };
        Ok(Given { name, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classic::options::command;

    fn read(line: &str) -> (Vec<String>, Option<Complaint>, Vec<String>) {
        let command = command("rvsadm", false);
        let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let mut popt = Popt::new(&command, &args);
        let mut given = Vec::new();
        let mut complaint = None;
        while let Some(option) = popt.option() {
            match option {
                Ok(Given { name, value }) => given.push(match value {
                    Some(value) => format!("{name}={value}"),
                    None => name,
                }),
                Err(e) => {
                    complaint = Some(e);
                    break;
                }
            }
        }
        (given, complaint, popt.rest().collect())
    }

    #[test]
    fn forms() {
        let fine = [
            ("-Ln", "list numeric"),
            ("-ln", "list numeric"),
            ("--list --numeric", "list numeric"),
            ("-At 1.1.1.1:80", "add-service tcp-service=1.1.1.1:80"),
            ("-At1.1.1.1:80", "add-service tcp-service=1.1.1.1:80"),
            ("-A -t=x", "add-service tcp-service=x"),
            ("-A --tcp-service=x", "add-service tcp-service=x"),
            ("-A -p -s rr", "add-service persistent scheduler=rr"),
            ("-A -p 100", "add-service persistent=100"),
            ("-A -p100", "add-service persistent=100"),
            ("-A -p", "add-service persistent"),
            ("-a -w -5", "add-server weight=-5"),
            ("-L -c -- ", "list connection"),
        ];
        for (line, want) in fine {
            let (given, complaint, rest) = read(line);
            assert_eq!(given.join(" "), want, "{line}");
            assert_eq!(complaint, None, "{line}");
            assert!(rest.is_empty(), "{line}");
        }
        // Under rvsadm's own name there is more.
        assert_eq!(read("-P -z 1.1.1.1").1, Some(Complaint::Unknown));
        let extended = command("rvsadm", true);
        let read_extended = |line: &str, server| {
            let args: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let mut popt = Popt::new(&extended, &args);
            if server {
                popt.instead('b', "fullnat");
            }
            let mut names = Vec::new();
            while let Some(option) = popt.option() {
                let Given { name, value } = option.unwrap();
                names.push(value.map_or(name.clone(), |value| format!("{name}={value}")));
            }
            names.join(" ")
        };
        assert_eq!(
            read_extended("-P --laddr 1.1.1.1 -z2.2.2.2 --toa --toa=253", false),
            "add-laddr local-address=1.1.1.1 local-address=2.2.2.2 toa toa=253"
        );
        assert_eq!(read_extended("-A -b x", false), "add-service sched-flags=x");
        assert_eq!(read_extended("-abw 3", true), "add-server fullnat weight=3");
        assert_eq!(read("-L --bogus -n").1, Some(Complaint::Unknown));
        assert_eq!(read("-Lq").1, Some(Complaint::Unknown));
        assert_eq!(read("-A -t").1, Some(Complaint::MissingValue));
        assert_eq!(read("--list=x").1, Some(Complaint::UnwantedValue));
        assert_eq!(read("-L=n").1, Some(Complaint::UnwantedValue));
        assert_eq!(read("--set 1 2 3").2, ["1", "2", "3"]);
        assert_eq!(read("-L -- -n").2, ["-n"]);
        assert_eq!(read("-L -").2, ["-"]);
    }
}
