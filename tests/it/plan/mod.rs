//! Plans as documents: made, shown, judged.

mod made;
mod scope;

tests![in made, scope;];
