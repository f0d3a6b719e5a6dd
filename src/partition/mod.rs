//! Partition tables: MBR and GPT, the volumes they name, and what is refused by name.
