//! What a finding of the boot check is called.

use crate::error_code::codes;

codes! {
    /// What a finding is about. The names are stable: programs match on them.
    Code:
    /// The volume holds no Windows installation.
    NoWindows "no-windows",
    /// The SYSTEM or SOFTWARE hive cannot be read.
    HiveDamaged "hive-damaged",
    /// Which firmware starts the disk: UEFI or BIOS.
    Firmware "firmware",
    /// The partition with the boot manager.
    SystemPartition "system-partition",
    /// No EFI system partition, or none that can be read.
    NoSystemPartition "no-system-partition",
    /// Two disks of the guest have the same id.
    DuplicateDiskId "duplicate-disk-id",
    /// None or several of the MBR's partitions are active.
    NoActivePartition "no-active-partition",
    /// The MBR has boot code.
    BootCode "boot-code",
    /// The boot manager is there, for the right CPU.
    BootManager "boot-manager",
    /// No boot manager, or a broken one.
    NoBootManager "no-boot-manager",
    /// The fallback loader, which firmware starts when its NVRAM has no entry, is missing.
    NoFallbackLoader "no-fallback-loader",
    /// The boot configuration names this Windows.
    Bcd "bcd",
    /// The system partition has no boot configuration.
    NoBcd "no-bcd",
    /// The boot configuration is dirty, and its logs do not make it whole.
    BcdDirty "bcd-dirty",
    /// The default entry is missing, or starts something else.
    BcdEntry "bcd-entry",
    /// The default entry names another disk or partition.
    BcdDevice "bcd-device",
    /// The default entry keeps the loader from using a graphics mode.
    NoGraphics "no-graphics",
    /// The default entry allows drivers with a test signature.
    TestSigning "test-signing",
    /// The loader that the boot configuration names is there.
    OsLoader "os-loader",
    /// No loader, or a broken one.
    NoOsLoader "no-os-loader",
    /// A link that is damaged.
    LinkDamaged "link-damaged",
    /// The image does not show it.
    NotJudged "not-judged",
    /// The kernel or the HAL: there, missing or for another CPU.
    Kernel "kernel",
    /// Windows' own boot drivers.
    BootDrivers "boot-drivers",
    /// Filters of the device classes between Windows and its disk.
    Filters "filters",
    /// Windows 8 or later without a `DriverDatabase`.
    NoDriverDatabase "no-driver-database",
    /// No entry for any id of the controller.
    NoDeviceId "no-device-id",
    /// The INF that an id names is not active.
    PackageNotActive "package-not-active",
    /// The active package is not there.
    PackageMissing "package-missing",
    /// The package has no (or no whole) `Version`.
    NoVersion "no-version",
    /// The package does not say how to configure the id.
    NoDescriptor "no-descriptor",
    /// The configuration is missing or names no service.
    NoConfiguration "no-configuration",
    /// Plug and play finds a driver for the controller.
    Bound "bound",
    /// One form of the controller only.
    OneForm "one-form",
    /// No service of that name.
    NoService "no-service",
    /// The service's `Type` is not that of a kernel driver.
    ServiceType "service-type",
    /// The service's `Start` does not let it start at boot.
    StartType "start-type",
    /// A `StartOverride` beats the `Start` of the service.
    StartOverride "start-override",
    /// `ImagePath` is not on the Windows volume.
    ImagePath "image-path",
    /// `Parameters\BusType` is not what the driver's vendor sets.
    BusType "bus-type",
    /// The service starts the driver.
    Service "service",
    /// The file of a driver is missing.
    FileMissing "file-missing",
    /// The driver's file is not a program, or is truncated.
    NotAProgram "not-a-program",
    /// The driver's file is for another CPU than Windows.
    WrongMachine "wrong-machine",
    /// The driver's file is a program for user mode.
    WrongSubsystem "wrong-subsystem",
    /// The driver's file has no signature, nor is it listed in its catalogue.
    Unsigned "unsigned",
    /// The signature cannot be read, or does not match the file.
    BadSignature "bad-signature",
    /// A signature of a kind that this Windows does not know yet.
    SignatureTooNew "signature-too-new",
    /// The driver's file is there, for the right CPU, and signed as asked.
    File "file",
    /// No in-box controller starts at boot: only virtio disks start the guest.
    NoInboxController "no-way-back",
    /// An in-box controller starts at boot: an emulated disk starts the guest, too.
    InboxController "way-back",
    /// Fast startup is allowed: a shutdown may hibernate the kernel.
    FastStartup "fast-startup",
    /// Windows waits for a restart to finish an installation.
    PendingReboot "pending-reboot",
    /// Windows Setup is not finished.
    SetupInProgress "setup-in-progress",
    /// Filter drivers of other makers are on the disks.
    DiskFilter "disk-filter",
    /// Antivirus drivers of other makers start with Windows.
    Antivirus "antivirus",
    /// Group policies may forbid the installation of devices.
    DevicePolicy "device-policy",
    /// The volume has little free space: the guest may fail to install drivers.
    LittleSpace "little-space",
    /// The volume is hibernated, or was not shut down cleanly.
    VolumeState "volume-state",
}

crate::schema::written_by_name!(Code);
