//! The differences as they are printed.

use super::json::Json;
use super::listing::Listing;
use crate::cli::Ui;
use crate::error::Result;
use crate::job::diff::{Compared, Difference};

/// The differences in the form that was asked for.
pub(super) enum Answer<'u> {
    Listing(Listing<'u>),
    Json(Json<'u>),
}

impl<'u> Answer<'u> {
    pub(super) fn begin(ui: &'u Ui) -> Result<Self> {
        Ok(if ui.is_json() { Self::Json(Json::begin(ui)?) } else { Self::Listing(Listing::new(ui)) })
    }

    pub(super) fn add(&mut self, difference: &Difference<'_>) -> Result<()> {
        match self {
            Self::Json(json) => json.add(difference),
            Self::Listing(listing) => {
                listing.add(difference);
                Ok(())
            }
        }
    }

    pub(super) fn finish(self, compared: &Compared) -> Result<()> {
        match self {
            Self::Json(json) => json.finish(compared),
            Self::Listing(listing) => {
                listing.finish(compared);
                Ok(())
            }
        }
    }
}
