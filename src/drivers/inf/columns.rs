//! Positions of the fields in the entries of an INF, counted after the key.
//!
//! Source: "INF file sections and directives" of Microsoft's driver documentation, the page of each directive.

/// A line of an `AddReg` section: `reg-root,[subkey],[value-entry-name],[flags],[value][,value…]`
pub(super) mod add_reg {
    pub const ROOT: usize = 0;
    pub const SUBKEY: usize = 1;
    pub const NAME: usize = 2;
    pub const FLAGS: usize = 3;
    /// The first of the values.
    pub const VALUE: usize = 4;
}

/// The directive `AddService=ServiceName,[flags],service-install-section[,event-log-install-section[,[EventLogType][,EventName]]]`
pub(super) mod add_service {
    pub const NAME: usize = 0;
    pub const FLAGS: usize = 1;
    pub const SECTION: usize = 2;
    pub const EVENT_LOG_SECTION: usize = 3;
    pub const EVENT_LOG: usize = 4;
    pub const EVENT_SOURCE: usize = 5;
}

/// A line of a `CopyFiles` section: `destination-file-name[,[source-file-name][,[unused][,flag]]]`
pub(super) mod copy_files {
    pub const DESTINATION: usize = 0;
    pub const SOURCE: usize = 1;
    pub const FLAGS: usize = 3;
}

/// A line of `[DestinationDirs]`: `file-list-section=dirid[,subdir]`
pub(super) mod destination_dirs {
    pub const DIRID: usize = 0;
    pub const SUBDIR: usize = 1;
}

/// The entry `DriverVer=mm/dd/yyyy[,w.x.y.z]`
pub(super) mod driver_ver {
    pub const DATE: usize = 0;
    pub const VERSION: usize = 1;
}

/// A line of `[Manufacturer]`: `manufacturer-name[=models-section-name[,TargetOSVersion…]]`
pub(super) mod manufacturer {
    pub const MODELS_SECTION: usize = 0;
    /// The first of the decorations.
    pub const TARGET_OS: usize = 1;
}

/// A line of a models section: `device-description=install-section-name[,[hw-id][,compatible-id…]]`
pub(super) mod models {
    pub const INSTALL_SECTION: usize = 0;
    pub const HARDWARE_ID: usize = 1;
}

/// A line of `[SourceDisksFiles]`: `filename=diskid[,[subdir][,size]]`
pub(super) mod source_disks_files {
    pub const DISK_ID: usize = 0;
    pub const SUBDIR: usize = 1;
}

/// A line of `[SourceDisksNames]`: `diskid=disk-description[,[tag-or-cab-file],[unused],[path][,flags][,tag-file]]`
pub(super) mod source_disks_names {
    pub const PATH: usize = 3;
}
