//! Reading ISO 9660 (Rock Ridge, Joliet, level 4) and UDF.
