//! LZNT1, XPRESS, LZX and the chunk table of WOF streams. First byte: which; then 16 bits of output size; then the input.
#![no_main]

use libfuzzer_sys::fuzz_target;
use winject::internals::ntfs::compress::wof::Algorithm;
use winject::internals::ntfs::compress::{lznt1, lzx, xpress};

fuzz_target!(|input: &[u8]| {
    let Some((&[which, low, high], data)) = input.split_first_chunk::<3>() else { return };
    let size = usize::from(u16::from_le_bytes([low, high]));
    let mut output = vec![0; size];
    match which % 7 {
        0 => {
            let _ = lznt1::decompress(data, &mut output);
        }
        1 => {
            let _ = xpress::decompress(data, &mut output);
        }
        2 => {
            let _ = lzx::decompress(data, &mut output);
        }
        n => {
            let algorithm = [Algorithm::Xpress4k, Algorithm::Xpress8k, Algorithm::Xpress16k, Algorithm::Lzx];
            let content = algorithm[usize::from(n) - 3].content(size as u64 * 3, data.len() as u64);
            let Ok(content) = content else { return };
            let read = |at: u64, buf: &mut [u8]| {
                let at = usize::try_from(at).unwrap();
                // what it asks for lies in the stream
                buf.copy_from_slice(&data[at..at + buf.len()]);
                Ok(())
            };
            let _ = content.read_at(size as u64 / 2, &mut output, read);
        }
    }
});
