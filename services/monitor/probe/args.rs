//! The command line of `probe`: one subcommand for each kind, one option for each field, with the contract's own comments as help.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use vantage_contract::descriptors;

use super::build;
use crate::{client::Trust, output::Output};

/// What is to be probed, and how it is told.
#[derive(Debug, Clone)]
pub(crate) struct ProbeArgs {
    /// The kind, as the contract spells it.
    pub(crate) kind: String,
    /// The target: a host, host:port, URL, or name@server.
    pub(crate) target: String,
    /// Fields by path within `Probe` or within the kind's own message, and their text.
    pub(crate) settings: Vec<(String, String)>,
    /// What all kinds have in common.
    pub(crate) common: Common,
}

/// What all kinds have in common, besides the fields of `Probe`.
#[derive(Debug, Clone, Args)]
pub(crate) struct Common {
    /// Probe from the monitor at this URL in place of from here
    #[arg(long, value_name = "URL")]
    pub(crate) at: Option<String>,
    /// What to print: text for people, or the result as one JSON object
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Output,
    /// Sets any field of the probe by its path in the contract, as `ping.count=5` or `https.headers.Accept=text/plain`
    #[arg(long, value_name = "FIELD=VALUE")]
    pub(crate) set: Vec<String>,
    /// IPv4 only
    #[arg(short = '4', conflicts_with = "six")]
    pub(crate) four: bool,
    /// IPv6 only
    #[arg(short = '6')]
    pub(crate) six: bool,
    /// How the monitor is trusted
    #[command(flatten)]
    pub(crate) trust: Trust,
}

impl Args for ProbeArgs {
    fn augment_args(command: Command) -> Command {
        let Some(probe) = build::probe() else { return command };
        let kinds = probe.fields().filter(|field| field.containing_oneof().is_some()).map(|kind| subcommand(&kind, &probe));
        command.subcommand_required(true).arg_required_else_help(true).subcommand_value_name("KIND").subcommands(kinds)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ProbeArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let missing = || clap::Error::new(clap::error::ErrorKind::MissingSubcommand);
        let (name, matches) = matches.subcommand().ok_or_else(missing)?;
        let common = Common::from_arg_matches(matches)?;
        let mut settings = Vec::new();
        for option in options(name) {
            let values = matches.get_many::<String>(&option.path).into_iter().flatten();
            settings.extend(values.map(|value| (option.path.clone(), value.clone())));
        }
        for (given, family) in [(common.four, "4"), (common.six, "6")] {
            if given {
                settings.push(("address_family".to_owned(), family.to_owned()));
            }
        }
        for set in &common.set {
            let wrong = || clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("--set {set:?}: write FIELD=VALUE\n"));
            let (path, value) = set.split_once('=').ok_or_else(wrong)?;
            settings.push((path.to_owned(), value.to_owned()));
        }
        let target = matches.get_one::<String>(TARGET).cloned().unwrap_or_default();
        Ok(Self { kind: name.to_owned(), target, settings, common })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The id of the positional argument; no field can be called so.
const TARGET: &str = "TARGET";

/// One field as an option.
struct Setting {
    /// The path within `Probe`, or within the kind's message.
    path: String,
    field: FieldDescriptor,
}

/// The options of a kind: the shared ones and its own.
fn options(kind: &str) -> Vec<Setting> {
    let Some(probe) = build::probe() else { return Vec::new() };
    let mut options = Vec::new();
    for field in probe.fields() {
        if field.containing_oneof().is_none() {
            options.push(Setting { path: field.name().to_owned(), field });
        } else if field.name() == kind
            && let Kind::Message(message) = field.kind()
        {
            collect(&message, "", &mut options);
        }
    }
    options
}

/// The fields of a message and, by dotted paths, of those within it; lists and maps are one option each. What the target says has none.
fn collect(message: &MessageDescriptor, prefix: &str, options: &mut Vec<Setting>) {
    for field in message.fields() {
        if prefix.is_empty() && build::TARGET_FIELDS.contains(&field.name()) {
            continue;
        }
        let path = format!("{prefix}{}", field.name());
        if let Some(within) = build::within(&field) {
            collect(&within, &format!("{path}."), options);
        }
        options.push(Setting { path, field });
    }
}

fn subcommand(kind: &FieldDescriptor, probe: &MessageDescriptor) -> Command {
    let (about, _) = comment(kind);
    let Kind::Message(message) = kind.kind() else { return Command::new(kind.name().to_owned()) };
    let target = Arg::new(TARGET).required(true).value_name(build::target_form(&message)).help("What to probe");
    let mut command = Command::new(kind.name().to_owned()).arg(target);
    for option in options(kind.name()) {
        let own = option.field.parent_message() != probe;
        command = command.arg(argument(option).help_heading(if own { "Fields of the probe" } else { "Fields of every probe" }));
    }
    // What talks to a monitor comes last; its own comment is not the command's.
    Common::augment_args(command).about(about.clone()).long_about(about)
}

fn argument(Setting { path, field }: Setting) -> Arg {
    let (short, long) = comment(&field);
    let flag = path.replace(['.', '_'], "-");
    let argument = Arg::new(path).long(flag).help(short).long_help(long).action(ArgAction::Append).allow_negative_numbers(true);
    match field.kind() {
        // A flag that may say what it means: --insecure, --insecure=false.
        Kind::Bool if !field.is_list() => argument.value_name("BOOL").num_args(0..=1).require_equals(true).default_missing_value("true"),
        _ if build::within(&field).is_some() => {
            argument.value_name("JSON").num_args(0..=1).require_equals(true).default_missing_value("{}")
        }
        _ if field.is_map() => argument.value_name("NAME=VALUE"),
        Kind::Message(message) if message.full_name() == "google.protobuf.Duration" => argument.value_name("DURATION"),
        Kind::Message(_) => argument.value_name("JSON"),
        Kind::Enum(values) => argument.value_name(words(&values)),
        Kind::String | Kind::Bytes => argument.value_name("TEXT"),
        _ => argument.value_name("NUMBER"),
    }
}

/// The values of an enum as files spell them: "udp|tcp|tls".
fn words(values: &prost_reflect::EnumDescriptor) -> String {
    let names: Vec<_> = values.values().map(|value| value.name().to_owned()).collect();
    let prefix = names.iter().find_map(|name| name.strip_suffix("UNSPECIFIED")).unwrap_or_default();
    let short = names.iter().filter_map(|name| name.strip_prefix(prefix)).filter(|name| *name != "UNSPECIFIED");
    short.map(str::to_ascii_lowercase).collect::<Vec<_>>().join("|")
}

/// The contract's comment on a field: its first sentence, and all of it.
fn comment(field: &FieldDescriptor) -> (String, String) {
    let file = field.parent_message().parent_file();
    let info = descriptors()
        .get_file_by_name(file.name())
        .and_then(|file| file.file_descriptor_proto().source_code_info.clone())
        .unwrap_or_default();
    let location = info.location.iter().find(|location| location.path == field.path());
    let text = location.map(|location| location.leading_comments().split_whitespace().collect::<Vec<_>>().join(" ")).unwrap_or_default();
    let first = text.split_inclusive(". ").next().unwrap_or_default().trim_end().trim_end_matches('.').to_owned();
    (first, text)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        probe: ProbeArgs,
    }

    fn parse(line: &str) -> Result<ProbeArgs, clap::Error> {
        Line::try_parse_from(std::iter::once("probe").chain(line.split(' '))).map(|line| line.probe)
    }

    fn settings(line: &str) -> Vec<(String, String)> {
        parse(line).unwrap().settings
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn every_kind_of_the_contract_has_a_sound_subcommand() {
        let command = ProbeArgs::augment_args(Command::new("probe"));
        command.clone().debug_assert();
        let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        assert_eq!(names, vantage_probes::KINDS);
        for kind in command.get_subcommands() {
            assert!(kind.get_about().is_some(), "{}", kind.get_name());
            assert!(kind.get_arguments().all(|argument| argument.get_help().is_some_and(|help| !help.to_string().is_empty())));
        }
    }

    #[test]
    fn fields_are_options() {
        assert_eq!(
            settings("ping ::1 --count 5 --dont-fragment -6"),
            pairs(&[("count", "5"), ("dont_fragment", "true"), ("address_family", "6")])
        );
        assert_eq!(
            settings("https a --expect-status 200 --expect-status 404"),
            pairs(&[("expect.status", "200"), ("expect.status", "404")])
        );
        assert_eq!(settings("tcp a:1 --tls --tls-insecure=false"), pairs(&[("tls.insecure", "false"), ("tls", "{}")]));
        assert_eq!(settings("ping a --set ping.count=5 --timeout 2s"), pairs(&[("timeout", "2s"), ("ping.count", "5")]));
    }

    #[test]
    fn what_is_no_kind_and_no_field_is_refused() {
        for wrong in ["pong a", "ping", "ping a --cuont 5", "ping a -4 -6", "ping a --set count"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn help_is_the_contracts_own_comment() {
        let count = options("ping").into_iter().find(|option| option.path == "count").unwrap();
        let (short, long) = comment(&count.field);
        assert_eq!(short, "How many requests");
        assert_eq!(long, "How many requests. 1 to 1000. Default 3.");
    }
}
