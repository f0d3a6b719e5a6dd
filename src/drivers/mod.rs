//! Driver media: INF, PE and catalogue facts, definitions, and the choice for a guest.
