//! One configuration file for `serve`: a YAML mapping in which every flag has a key of its own name, without the dashes.
//!
//! It becomes flags that are put before those of the command line, where neither the command line nor the environment
//! says otherwise; so each value is judged by the rules of its flag, and a new flag is a new key by itself.

use std::ffi::OsString;
use std::path::PathBuf;

use active_monitor_core::document::{self, Finding, Input, Object};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches, Parser};
use serde_json::Value;

use super::Cli;

/// The flag that names the file.
const CONFIG: &str = "config";
/// The subcommand that does what is done without one.
const SERVE: &str = "serve";

/// Why there is nothing to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The command line or the environment is wrong, or help was asked for.
    #[error(transparent)]
    Clap(#[from] clap::Error),
    /// The file cannot be read.
    #[error("--config: {path} cannot be read")]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file says something that makes no sense.
    #[error("{0}")]
    Wrong(Finding),
}

/// Reads command line, environment and file, in this order of precedence.
///
/// # Errors
/// See [`CliError`].
pub fn parse(args: Vec<OsString>) -> Result<Cli, CliError> {
    let Some((matches, at)) = first_look(&args) else { return Ok(Cli::try_parse_from(args)?) };
    let Some(path) = matches.get_one::<PathBuf>(CONFIG).cloned() else { return Ok(Cli::try_parse_from(args)?) };
    let text = std::fs::read_to_string(&path).map_err(|source| CliError::Read { path: path.clone(), source })?;
    let flags = flags(&path.display().to_string(), text)?;
    let is_said =
        |id: &str| matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
    let said = flags.into_iter().filter(|(id, _)| !is_said(id)).flat_map(|(_, flags)| flags);
    let mut all = args;
    let rest = all.split_off(at.min(all.len()));
    all.extend(said.map(OsString::from));
    all.extend(rest);
    Ok(Cli::from_arg_matches(&Cli::command().try_get_matches_from(all)?)?)
}

/// The arguments of `serve`, and where they begin. What is wrong with them is said when they are read with the file.
fn first_look(args: &[OsString]) -> Option<(ArgMatches, usize)> {
    let mut matches = Cli::command().ignore_errors(true).try_get_matches_from(args).ok()?;
    match matches.remove_subcommand() {
        None => Some((matches, 1)),
        Some((name, of_serve)) if name == SERVE => Some((of_serve, 2)),
        Some(_) => None,
    }
}

/// Each flag that the file has a key for, by the flag's id.
fn flags(name: &str, text: String) -> Result<Vec<(String, Vec<String>)>, CliError> {
    let mut findings = Vec::new();
    let objects = document::objects(&Input { name: name.to_owned(), text }, &mut findings);
    if let Some(finding) = findings.into_iter().next() {
        return Err(CliError::Wrong(finding));
    }
    let object = match objects.as_slice() {
        [] => return Ok(Vec::new()),
        [object] => object,
        [_, second, ..] => return Err(CliError::Wrong(second.error("", "a second document"))),
    };
    let command = Cli::command();
    let of_key = |(key, value): (&String, &Value)| {
        let arg = known(&command).find(|arg| arg.get_long() == Some(key)).ok_or_else(|| {
            let mut allowed: Vec<&str> = known(&command).filter_map(Arg::get_long).collect();
            allowed.sort_unstable();
            object.error(key, format!("unknown key; allowed are {}", allowed.join(", ")))
        })?;
        let flags = of_arg(object, key, arg, value)?;
        judge(object, key, &flags)?;
        Ok((arg.get_id().to_string(), flags))
    };
    object.value.as_object().into_iter().flatten().map(of_key).collect::<Result<_, _>>().map_err(CliError::Wrong)
}

/// The flags that may be keys.
fn known(command: &Command) -> impl Iterator<Item = &Arg> {
    let is_key = |arg: &&Arg| arg.get_long().is_some_and(|long| ![CONFIG, "help", "version"].contains(&long));
    command.get_arguments().filter(is_key)
}

/// A key's value as the command line has it.
fn of_arg(object: &Object, key: &str, arg: &Arg, value: &Value) -> Result<Vec<String>, Finding> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    let takes_value = arg.get_action().takes_values();
    match (value, arg.get_action()) {
        (Value::Bool(flag), _) if !takes_value => Ok(if *flag { vec![format!("--{key}")] } else { Vec::new() }),
        (_, _) if !takes_value => Err(object.error(key, "must be true or false")),
        (Value::Array(items), ArgAction::Append) => {
            let texts: Option<Vec<String>> = items.iter().map(scalar).collect();
            let texts = texts.ok_or_else(|| object.error(key, "must be a list of single values"))?;
            Ok(texts.into_iter().map(|text| format!("--{key}={text}")).collect())
        }
        (value, _) => {
            let text = scalar(value).ok_or_else(|| object.error(key, "must be a single value"))?;
            Ok(vec![format!("--{key}={text}")])
        }
    }
}

/// Whether the flag takes the value.
fn judge(object: &Object, key: &str, flags: &[String]) -> Result<(), Finding> {
    let args = std::iter::once("hub").chain(flags.iter().map(String::as_str));
    let Err(error) = Cli::command().try_get_matches_from(args) else { return Ok(()) };
    let text = error.to_string();
    // What the environment says is judged elsewhere.
    if !text.contains(&format!("'--{key}")) {
        return Ok(());
    }
    let first = text.lines().next().unwrap_or_default();
    Err(object.error(key, first.strip_prefix("error: ").unwrap_or(first)))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::ServeArgs;

    fn with(text: &str, args: &[&str]) -> Result<ServeArgs, CliError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hub.yaml");
        std::fs::write(&path, text).unwrap();
        let config = format!("--config={}", path.display());
        let args = ["hub"].into_iter().chain(args.iter().copied()).chain([config.as_str()]);
        parse(args.map(OsString::from).collect()).map(|cli| match cli.command {
            Some(crate::config::Command::Serve(args)) => *args,
            _ => cli.serve,
        })
    }

    #[test]
    fn a_key_stands_for_its_flag_and_the_command_line_wins() {
        let text = "lease-seconds: 30\nrun-days: 7\ntls-name: [a.example, b.example]\npeople-plaintext: true\nlog-format: json\n";
        for command in [&[][..], &["serve"][..]] {
            let args = with(text, &[command, &["--run-days=3"]].concat()).unwrap();
            assert_eq!((args.lease_seconds, args.run_days, args.people_plaintext), (30, 3, true));
            assert_eq!(args.tls_name, ["a.example", "b.example"]);
            assert_eq!(args.audit_days, 366);
        }
        assert!(!with("people-plaintext: false\n", &[]).unwrap().people_plaintext);
        assert_eq!(with("# nothing\n", &[]).unwrap().lease_seconds, 15);
    }

    #[test]
    fn what_is_wrong_is_one_clear_error_with_its_line() {
        for (text, expected) in [
            ("run-days: 7\nleese-seconds: 3\n", "hub.yaml:2:1: leese-seconds: unknown key; allowed are admin-listen, "),
            (
                "run-days: 7\nlease-seconds: soon\n",
                "hub.yaml:2:1: lease-seconds: invalid value 'soon' for '--lease-seconds",
            ),
            ("lease-seconds: 0\n", "hub.yaml:1:1: lease-seconds: invalid value '0' for"),
            ("lease-seconds: [1]\n", "hub.yaml:1:1: lease-seconds: must be a single value"),
            ("lease-seconds:\n", "hub.yaml:1:1: lease-seconds: must be a single value"),
            ("tls-name: [{a: b}]\n", "hub.yaml:1:1: tls-name: must be a list of single values"),
            ("people-plaintext: maybe\n", "hub.yaml:1:1: people-plaintext: must be true or false"),
            ("config: other.yaml\n", "hub.yaml:1:1: config: unknown key"),
            ("run-days: 1\nrun-days: 2\n", "hub.yaml:2:1: "),
            ("- a\n", "hub.yaml:1:1: this is no object"),
            ("run-days: 1\n---\nrun-days: 1\n", "hub.yaml:3:1: a second document"),
        ] {
            let said = with(text, &[]).unwrap_err().to_string();
            let said = said.split_once("/hub.yaml").map_or(said.clone(), |(_, rest)| format!("hub.yaml{rest}"));
            assert!(said.starts_with(expected), "{expected}\n{said}");
        }
        let missing = parse(["hub", "--config=/no/such"].map(OsString::from).into()).unwrap_err();
        assert_eq!(missing.to_string(), "--config: /no/such cannot be read");
        assert!(matches!(with("run-days: 7\n", &["--lease-seconds=soon"]), Err(CliError::Clap(_))));
    }

    #[test]
    fn the_file_of_the_plain_manifests_is_one_that_the_hub_takes() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/hub/hub.yaml");
        let manifests = std::fs::read_to_string(path).unwrap();
        let (_, after) = manifests.split_once("\n  config.yaml: |\n").unwrap();
        let lines: Vec<&str> = after.lines().map_while(|line| line.strip_prefix("    ")).collect();
        let args = with(&lines.join("\n"), &[]).unwrap();
        assert_eq!(args.check(), Ok(()));
        assert_eq!(args.agents_advertise.as_deref(), Some("hub.example.com:7443"));
        assert!(args.names().contains(&"active-monitor-hub-people.active-monitor.svc".to_owned()));
    }

    #[test]
    fn the_documented_flags_are_those_that_there_are() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/hub.md");
        let text = std::fs::read_to_string(path).unwrap();
        let section = text.split("\n## Flags\n").nth(1).unwrap().split("\n## ").next().unwrap();
        let rows: Vec<Vec<&str>> = section
            .lines()
            .filter(|line| line.starts_with("| `--"))
            .map(|line| line.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1).collect())
            .collect();
        let command = Cli::command();
        let mut undocumented = Vec::new();
        for arg in command.get_arguments().filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")) {
            let Some(long) = arg.get_long() else { continue };
            let env = arg.get_env().map(|env| env.to_string_lossy().into_owned()).unwrap_or_default();
            let default: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
            let fits = |row: &&Vec<&str>| {
                row[0] == format!("--{long}") && row[1] == env && (default.is_empty() || row[2] == default.join(","))
            };
            if !rows.iter().any(|row| fits(&row)) {
                undocumented.push(format!("| `--{long}` | `{env}` | `{}` |", default.join(",")));
            }
        }
        assert!(undocumented.is_empty(), "docs/hub.md, Flags, lacks or tells otherwise:\n{}", undocumented.join("\n"));
        for row in rows {
            assert!(
                command.get_arguments().any(|arg| arg.get_long() == row[0].strip_prefix("--")),
                "no flag {}",
                row[0]
            );
        }
    }
}
