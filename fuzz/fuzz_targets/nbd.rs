//! Replies of an NBD server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::nbd::reply::{Answer, Assembly, Question, read_head};

const LENGTH: u32 = 4096;

fuzz_target!(|data: &[u8]| {
    let Some((choice, mut data)) = data.split_first() else { return };
    let is_structured = choice & 1 != 0;
    let question = match choice >> 1 & 3 {
        0 | 3 => Question::Read { offset: 1 << 20, length: LENGTH },
        1 => Question::Status { length: LENGTH, context: 7 },
        _ => Question::Effect,
    };
    let is_effect = matches!(question, Question::Effect);
    let mut assembly = Assembly::new(question);
    while let Ok(head) = read_head(&mut data, is_structured) {
        match assembly.receive(head, is_structured, &mut data) {
            Ok(false) => {}
            Ok(true) => {
                match assembly.finish() {
                    Ok(Answer::Bytes(bytes)) => assert_eq!(bytes.len(), LENGTH as usize),
                    Ok(Answer::Extents(extents)) => {
                        assert!(extents.iter().map(|(length, _)| length).sum::<u64>() <= u64::from(LENGTH));
                    }
                    Ok(Answer::Done) => assert!(is_effect),
                    Err(_) => {}
                }
                return;
            }
            Err(_) => return,
        }
    }
});
