//! Values that are words of a list: a function of ours judges them and says what is wrong, and shells complete the words.

use std::ffi::OsStr;

use clap::builder::{PossibleValue, TypedValueParser};
use clap::{Arg, Command, Error};

/// Parses a word. The list is for completions and schemas alone.
#[derive(Debug, Clone)]
pub struct Words<T: Clone> {
    parse: fn(&str) -> Result<T, String>,
    list: fn() -> Vec<PossibleValue>,
}

/// The parser for words that `parse` judges, and of which `list` names those that a shell offers.
pub fn words<T: Clone>(parse: fn(&str) -> Result<T, String>, list: fn() -> Vec<PossibleValue>) -> Words<T> {
    Words { parse, list }
}

/// The parser for any text, for which a shell offers the words of `list`.
pub fn suggestions(list: fn() -> Vec<PossibleValue>) -> Words<String> {
    words(|text| Ok(text.to_owned()), list)
}

/// A list of these names.
pub fn named<'a>(names: impl IntoIterator<Item = &'a &'static str>) -> Vec<PossibleValue> {
    names.into_iter().map(|name| PossibleValue::new(*name)).collect()
}

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Words<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<T, Error> {
        self.parse.parse_ref(command, argument, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new((self.list)().into_iter()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    /// A word that a shell offers and the command refuses would be worse than none.
    #[test]
    fn every_word_that_is_offered_is_taken() {
        let mut root = Cli::command();
        root.build();
        let (mut pending, mut count) = (vec![&root], 0);
        while let Some(command) = pending.pop() {
            for argument in command.get_arguments() {
                let alone = Arg::new("value").long("value").value_parser(argument.get_value_parser().clone());
                let alone = Command::new("alone").arg(alone);
                for word in argument.get_possible_values().iter().map(PossibleValue::get_name) {
                    let parsed = alone.clone().try_get_matches_from(["alone".to_owned(), format!("--value={word}")]);
                    assert!(parsed.is_ok(), "{} {argument}: {word}", command.get_name());
                    count += 1;
                }
            }
            pending.extend(command.get_subcommands().filter(|command| command.get_name() != "help"));
        }
        assert!(count > 500, "{count}");
    }
}
