//! ISO images made by xorriso and genisoimage, read by winject and by 7-Zip.

mod hostile;
mod images;
mod judged;

tests![in hostile, judged;];
