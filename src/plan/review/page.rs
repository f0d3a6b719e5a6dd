//! An HTML page that needs no other file: its head, and the look that all pages of winject share.

use crate::escape::html;

/// What is allowed to a page: its own style, and nothing from elsewhere.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";

/// Light and dark, narrow and wide, and on paper.
const STYLE: &str = include_str!("page.css");

/// A page under `title`. `mark` tells programs what it is (`winject report`); `style` adds to the common look, and `body`
/// is HTML.
#[must_use]
pub(crate) fn page(mark: &str, title: &str, style: &str, body: &str) -> String {
    format!("{}{body}{PAGE_END}", page_head(mark, title, style))
}

/// The beginning of a page that is written piece by piece, down to its body; see [`page`].
#[must_use]
pub(crate) fn page_head(mark: &str, title: &str, style: &str) -> String {
    format!(
        "{}<meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n",
        page_start(mark),
        html(title)
    )
}

/// The end of a page.
pub(crate) const PAGE_END: &str = "</body>\n</html>\n";

/// The first bytes of a page with this mark, by which it is recognised.
#[must_use]
pub(crate) fn page_start(mark: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"generator\" content=\"{mark}\">\n"
    )
}
