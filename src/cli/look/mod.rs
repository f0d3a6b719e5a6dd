//! `winject ls`, `cat` and `cp`: look into an image.

mod cat;
mod cp;
mod ls;
mod place;

pub use cat::{Args as CatArgs, run as cat};
pub use cp::{Args as CpArgs, run as cp};
pub(super) use ls::attribute_letters;
pub use ls::{Args as LsArgs, Head as ListHead, Line, run as ls};
pub use place::image_of;
