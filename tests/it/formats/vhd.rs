//! VHD: which size is meant, and footers that are not as they should be.

use winject::Kind;

use super::{assert_same, disk, image, open_error, qemu_img, read_all};
use crate::support::program;

/// A fixed VHD of `data` whose footer gives a geometry of `cylinders` × 2 × 17 sectors.
fn fixed(data: &[u8], creator: &[u8; 4], cylinders: u16) -> Vec<u8> {
    let mut footer = vec![0; 512];
    footer[..8].copy_from_slice(b"conectix");
    footer[11] = 2;
    footer[12..16].copy_from_slice(&0x1_0000u32.to_be_bytes());
    footer[16..24].fill(0xFF);
    footer[28..32].copy_from_slice(creator);
    footer[40..48].copy_from_slice(&(data.len() as u64).to_be_bytes());
    footer[48..56].copy_from_slice(&(data.len() as u64).to_be_bytes());
    footer[56..58].copy_from_slice(&cylinders.to_be_bytes());
    footer[58] = 2;
    footer[59] = 17;
    footer[63] = 2;
    let sum = !footer.iter().fold(0u32, |sum, b| sum.wrapping_add(u32::from(*b)));
    footer[64..68].copy_from_slice(&sum.to_be_bytes());
    [data, &footer].concat()
}

fn the_size_is_the_one_that_was_meant() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    let size = 1 << 20;
    let by_geometry = 50 * 2 * 17 * 512;
    let mut data = disk(size, 2);
    data[446..512].fill(0);
    let length = |data: &[u8], creator: &[u8; 4]| {
        std::fs::write(&path, fixed(data, creator, 50)).unwrap();
        image(&path).len()
    };
    for creator in [b"win ", b"qem2", b"d2v ", b"tap\0", b"CTXS"] {
        assert_eq!(length(&data, creator), size as u64);
    }
    // Others mean the geometry, as QEMU has it …
    for creator in [b"vpc ", b"vbox", b"qemu"] {
        assert_eq!(length(&data, creator), by_geometry);
    }
    // … unless the partition table says that the disk is larger.
    data[510..512].copy_from_slice(&[0x55, 0xAA]);
    data[446 + 4] = 7;
    data[446 + 8..446 + 12].copy_from_slice(&8u32.to_le_bytes());
    data[446 + 12..446 + 16].copy_from_slice(&(size as u32 / 512 - 8).to_le_bytes());
    assert_eq!(length(&data, b"vbox"), size as u64);
    // Where QEMU would see another size, it gets no overlay over the file.
    let is_backing = |data: &[u8], creator: &[u8; 4]| {
        std::fs::write(&path, fixed(data, creator, 50)).unwrap();
        image(&path).format_in_qemu().is_some()
    };
    assert!(is_backing(&data, b"win "));
    assert!(!is_backing(&data, b"vbox"));
    assert_same(&read_all(&*image(&path)), &data, "fixed VHD");
}

fn short_and_damaged_footers() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk.vhd");
    let data = disk(64 << 10, 3);
    let mut file = fixed(&data, b"win ", 1);
    // Old Virtual PC left the last byte out.
    std::fs::write(&path, &file[..file.len() - 1]).unwrap();
    assert_same(&read_all(&*image(&path)), &data, "footer of 511 bytes");
    let at = file.len() - 512 + 50;
    file[at] ^= 1;
    std::fs::write(&path, &file).unwrap();
    let error = open_error(&path);
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("checksum"), "{error}");

    if program("qemu-img").is_none() {
        return;
    }
    // A dynamic disk has a second copy of the footer in front.
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let content = disk(3 << 20, 4);
    std::fs::write(at("in.raw"), &content).unwrap();
    qemu_img(&["convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", &at("in.raw"), &at("disk.vhd")]);
    let mut file = std::fs::read(&path).unwrap();
    let end = file.len() - 512;
    file[end..].fill(0);
    std::fs::write(&path, &file).unwrap();
    assert_same(&read_all(&*image(&path)), &content, "footer from the front");
}

tests![the_size_is_the_one_that_was_meant, short_and_damaged_footers,];
