//! Saved plans: whatever the bytes, a document that is written back as they were, or an error. What is read is judged, and
//! its review has no character that steers a terminal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::plan::review::Review;
use winject::internals::plan::saved::PlanDocument;

fuzz_target!(|data: &[u8]| {
    if let Ok(document) = PlanDocument::parse(data) {
        assert_eq!(document.to_bytes(), data);
    }
    // Other spellings too, so that the judgement is reached more often.
    let Ok(document) = serde_json::from_slice::<PlanDocument>(data) else { return };
    if let Ok(read) = PlanDocument::parse(&document.to_bytes()) {
        assert_eq!(read, document);
    }
    let _ = document.judge();
    let review = Review::new(&document);
    for form in [review.to_text(), review.to_markdown(), review.to_html()] {
        assert!(!form.contains(|c: char| c.is_control() && c != '\n'));
    }
});
