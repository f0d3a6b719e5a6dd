//! Secrets as users give them.

use winject::internals::bitlocker::Secret;
use winject::internals::error::Kind;

/// Of a published volume.
const GOOD: &str = "616319-601744-502117-534017-367994-176748-607299-663201";

fn refusal(text: &str) -> String {
    let error = Secret::recovery_password(text).map(drop).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.hint_text().is_some());
    let text = error.to_string();
    // no group of the secret may show
    assert!(!GOOD.split('-').any(|group| text.contains(group)), "{text}");
    text
}

fn a_recovery_password_may_be_written_in_several_ways() {
    for text in [GOOD.to_owned(), GOOD.replace('-', ""), GOOD.replace('-', " "), format!("  {GOOD}\r\n")] {
        assert!(Secret::recovery_password(&text).is_ok());
    }
}

fn every_single_wrong_digit_is_found_and_its_group_is_named() {
    for (place, digit) in GOOD.char_indices().filter(|(_, c)| c.is_ascii_digit()) {
        for wrong in ('0'..='9').filter(|wrong| *wrong != digit) {
            let mut text = GOOD.to_owned();
            text.replace_range(place..=place, &wrong.to_string());
            assert!(refusal(&text).contains(&format!("group {} of 8", place / 7 + 1)), "{place} {wrong}");
        }
    }
}

fn what_is_not_a_recovery_password_is_refused_and_says_why() {
    assert!(refusal("").contains("0 digits of 48"));
    assert!(refusal(&GOOD[..54]).contains("47 digits of 48"));
    assert!(refusal(&format!("{GOOD}1")).contains("more than 48"));
    assert!(refusal(&GOOD.replace("601744", "60174x")).contains("group 2 of 8 has a character"));
    // divisible by 11, but no 16 bits times 11
    assert!(refusal(&GOOD.replace("601744", "999999")).contains("group 2 of 8"));
    assert!(refusal(&GOOD.replace("601744", "６０１７４４")).contains("group 2 of 8"));
}

fn passwords_end_before_the_line_break() {
    assert!(Secret::password("secret\n").is_ok());
    for wrong in ["", "\n", "\r\n"] {
        assert!(Secret::password(wrong).is_err());
    }
    assert!(Secret::password(&"x".repeat(2000)).is_err());
}

fn volume_keys_are_hexadecimal_or_the_file_of_dislocker() {
    for digits in [32, 64, 128] {
        assert!(Secret::volume_key(format!("{}\n", "5aF0".repeat(digits / 4)).as_bytes()).is_ok());
        assert!(Secret::volume_key("5x".repeat(digits / 2).as_bytes()).is_err());
    }
    for digits in [0, 30, 62, 66, 130, 4000] {
        assert!(Secret::volume_key("5a".repeat(digits / 2).as_bytes()).is_err(), "{digits}");
    }
    let mut file = vec![0x04, 0x80];
    file.extend([7; 64]);
    assert!(Secret::volume_key(&file).is_ok());
    file[0] = 0x06;
    assert!(Secret::volume_key(&file).is_err());
}

fn a_startup_key_file_that_is_cut_off_or_changed_is_refused_or_read() {
    let Some(good) = crate::support::corpus_bytes("bitlocker/startup_key.bek") else { return };
    assert!(Secret::startup_key(&good).is_ok());
    for length in 0..good.len() {
        assert!(Secret::startup_key(&good[..length]).is_err(), "{length}");
    }
    for place in 0..good.len() {
        for value in [0, 1, 0x7F, 0x80, 0xFF] {
            let mut bytes = good.clone();
            bytes[place] = value;
            let _ = Secret::startup_key(&bytes);
        }
    }
    assert!(Secret::startup_key(&vec![0; 1 << 20]).is_err());
}

tests![
    a_recovery_password_may_be_written_in_several_ways,
    every_single_wrong_digit_is_found_and_its_group_is_named,
    what_is_not_a_recovery_password_is_refused_and_says_why,
    passwords_end_before_the_line_break,
    volume_keys_are_hexadecimal_or_the_file_of_dislocker,
    a_startup_key_file_that_is_cut_off_or_changed_is_refused_or_read,
];
