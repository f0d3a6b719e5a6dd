//! The review, whatever it is printed as.

/// A plan for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// The heading.
    pub title: String,
    /// The parts in the order of reading.
    pub sections: Vec<Section>,
}

/// A part of a review under a heading of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// The heading.
    pub title: String,
    /// What it holds.
    pub items: Vec<Item>,
}

/// A paragraph, list, table or difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A sentence.
    Paragraph(String),
    /// Names with their values.
    Facts(Vec<(&'static str, String)>),
    /// Single sentences.
    List(Vec<String>),
    /// Titles, and rows of as many cells.
    Table(Vec<&'static str>, Vec<Vec<String>>),
    /// Lines with marks.
    Difference(Vec<Line>),
    /// The content of a text file under its name.
    Content(String, String),
}

/// A line of a difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// What happens to it.
    pub mark: Mark,
    /// The line.
    pub text: String,
}

/// What happens to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A heading of the lines that follow.
    Heading,
    /// It stays.
    Same,
    /// It goes.
    Removed,
    /// It comes.
    Added,
}

impl Line {
    pub(crate) fn new(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, text: text.into() }
    }
}
