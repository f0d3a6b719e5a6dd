//! Edits of the boot volume by an injection: the fallback loader, and two flags of the default loader.

use super::boot_check::{NO_GRAPHICS, TEST_SIGNING, element_key};
use super::boot_options::{BootGraphics, BootOptions, FallbackLoader, TestSigning};
use super::boot_volume::{BootVolume, Fallback, not_editable};
use super::earlier_boot::{EarlierBoot, EarlierElement};
use super::plan_builder::PlanBuilder;
use super::record::{Action, BootElementRecord, BootFileRecord, BootRecord};
use crate::error::{Error, Result};
use crate::hex;
use crate::plan::{BOOT_MANAGER, GuestHive};

/// Why nothing of the boot volume is edited when the disk has none.
const NO_BOOT_VOLUME: &str =
    "the disk has neither an EFI system partition nor an active partition with the boot manager";

/// Requests the edits of the boot volume, which the disk may not have.
///
/// # Errors
/// When an edit was asked for and cannot be made; when something is damaged.
pub(super) fn edit_boot_volume(
    builder: &mut PlanBuilder<'_>,
    boot: Option<&BootVolume>,
    options: &BootOptions,
    earlier: &EarlierBoot,
    record: &mut BootRecord,
) -> Result<()> {
    let Some(boot) = boot else {
        carry_over(None, earlier, record)?;
        record
            .files
            .extend(earlier.files.iter().map(|file| loader_record(&file.path, &file.sha256, Action::Unchanged)));
        return match options {
            BootOptions { fallback_loader: FallbackLoader::On, .. } => Err(no_loader(NO_BOOT_VOLUME)),
            BootOptions { test_signing: TestSigning::On | TestSigning::Off, .. } => {
                Err(no_test_signing(NO_BOOT_VOLUME))
            }
            _ => Ok(()),
        };
    };
    builder.set_boot_place(&boot.place);
    record.store = Some(boot.place.store.clone());
    put_fallback_loader(builder, boot, options.fallback_loader, earlier, record)?;
    edit_flags(builder, boot, options, earlier, record)?;
    carry_over(builder.has_hive(GuestHive::Bcd).then_some(&*builder), earlier, record)
}

/// Records what earlier runs did and this one leaves alone, if the guest is still so; without a boot configuration to compare
/// with (`builder`), all of it: a removal compares again.
fn carry_over(builder: Option<&PlanBuilder<'_>>, earlier: &EarlierBoot, record: &mut BootRecord) -> Result<()> {
    for EarlierElement { object, element, data, before } in &earlier.elements {
        let is_known = |own: &BootElementRecord| own.object.eq_ignore_ascii_case(object) && own.element == *element;
        let is_left = match builder {
            Some(builder) => builder.boot_element(&element_key(object, element))? == *data,
            None => true,
        };
        if is_left && !record.elements.iter().any(is_known) {
            record.elements.push(BootElementRecord {
                object: object.clone(),
                element: element.clone(),
                data: data.as_deref().map(hex::encode),
                before: before.as_deref().map(hex::encode),
                action: Action::Unchanged,
            });
        }
    }
    Ok(())
}

fn put_fallback_loader(
    builder: &mut PlanBuilder<'_>,
    boot: &BootVolume,
    wanted: FallbackLoader,
    earlier: &EarlierBoot,
    record: &mut BootRecord,
) -> Result<()> {
    let Some(Fallback { path, exists, obstacle, boot_manager }) = &boot.fallback else {
        let is_wanted = wanted == FallbackLoader::On;
        return if is_wanted {
            Err(no_loader("the disk has no EFI system partition that can be read"))
        } else {
            Ok(())
        };
    };
    if *exists {
        let ours = earlier.files.iter().find(|file| file.path == *path);
        record.files.extend(ours.map(|file| loader_record(path, &file.sha256, Action::Unchanged)));
        return Ok(());
    }
    if wanted == FallbackLoader::Off {
        return Ok(());
    }
    let has_room = |size: u64| boot.space.clone().map(|space| space.is_none_or(|space| space.has_room_for(size)));
    let problem = match (boot_manager, boot_manager.as_ref().ok().map(|(size, _)| has_room(*size))) {
        // Without a boot manager the boot check says more.
        (Err(_), _) if wanted == FallbackLoader::Auto => return Ok(()),
        (Err(reason), _) => reason.clone(),
        (Ok(_), _) if obstacle.is_some() => obstacle.clone().unwrap_or_default(),
        (Ok(_), Some(Err(reason))) => reason,
        (Ok((size, _)), Some(Ok(false))) => format!("{} has less than {size} bytes free", boot.partition.label()),
        (Ok((size, sha256)), _) => {
            builder
                .set_reason("UEFI firmware finds Windows without an entry in its NVRAM, as that of a new machine is");
            builder.copy_boot_file(BOOT_MANAGER, path, *size, *sha256);
            record.files.push(loader_record(path, sha256, Action::Created));
            return Ok(());
        }
    };
    if wanted == FallbackLoader::On {
        return Err(no_loader(&problem));
    }
    builder.add_warning(format!("the fallback loader {path} is missing, and is not put in place: {problem}"));
    Ok(())
}

fn loader_record(path: &str, sha256: &[u8; 32], action: Action) -> BootFileRecord {
    BootFileRecord { path: path.to_owned(), source: BOOT_MANAGER.to_owned(), sha256: hex::encode(sha256), action }
}

fn no_loader(reason: &str) -> Error {
    not_editable("put the fallback loader in place", reason)
        .hint("nothing was written; mend that in the guest, or leave out --fallback-loader on")
}

fn no_test_signing(reason: &str) -> Error {
    not_editable("change test signing", reason)
        .hint("nothing was written; in the running guest: bcdedit /set testsigning on (or off)")
}

fn edit_flags(
    builder: &mut PlanBuilder<'_>,
    boot: &BootVolume,
    options: &BootOptions,
    earlier: &EarlierBoot,
    record: &mut BootRecord,
) -> Result<()> {
    let asks_test_signing = options.test_signing != TestSigning::Keep;
    let problem = boot.loader.as_ref().err().or(boot.space.as_ref().err());
    if let Some(reason) = problem.filter(|_| asks_test_signing) {
        return Err(no_test_signing(reason));
    }
    let Ok(loader) = &boot.loader else { return Ok(()) };
    let graphics = element_key(loader, NO_GRAPHICS);
    let is_wanted =
        boot.is_uefi && options.graphics == BootGraphics::Auto && builder.boot_element(&graphics)?.is_some();
    if let Some(reason) = problem.filter(|_| is_wanted) {
        builder.add_warning(format!("graphicsmodedisabled stays in {}: {reason}", boot.place.store));
    }
    builder
        .set_reason("the loader may use the graphics mode: the screen of a virtual machine with UEFI has no text mode");
    let wanted = (is_wanted && problem.is_none()).then_some(None);
    edit_flag(builder, loader, NO_GRAPHICS, wanted, earlier, record)?;
    let wanted = match options.test_signing {
        TestSigning::Keep => None,
        TestSigning::On => Some(Some(vec![1])),
        TestSigning::Off => Some(None),
    };
    if options.test_signing == TestSigning::On {
        builder.add_warning(
            "test signing is on: this Windows loads kernel drivers with any test signature, and shows \"Test Mode\" on its \
             desktop. Use it for test machines only; it has no effect while Secure Boot is on. --test-signing off takes it \
             back",
        );
    }
    builder.set_reason("test signing, as asked for");
    edit_flag(builder, loader, TEST_SIGNING, wanted, earlier, record)
}

/// Requests a flag with these data or none, if something of it is `wanted`, and records what was there before the first run.
fn edit_flag(
    builder: &mut PlanBuilder<'_>,
    loader: &str,
    number: &str,
    wanted: Option<Option<Vec<u8>>>,
    earlier: &EarlierBoot,
    record: &mut BootRecord,
) -> Result<()> {
    let key = element_key(loader, number);
    let found = builder.boot_element(&key)?;
    let is_same = |element: &&EarlierElement| {
        element.object.eq_ignore_ascii_case(loader) && element.element == number && element.data == found
    };
    let ours = earlier.elements.iter().find(is_same);
    let before = ours.map_or_else(|| found.clone(), |element| element.before.clone());
    let data = match wanted {
        Some(data) => {
            builder.set_boot_element(&key, data.as_deref())?;
            data
        }
        None => found.clone(),
    };
    if data != before {
        let action = match &data {
            data if *data == found => Action::Unchanged,
            None => Action::Removed,
            Some(_) if found.is_none() => Action::Created,
            Some(_) => Action::Updated,
        };
        record.elements.push(BootElementRecord {
            object: loader.to_owned(),
            element: number.to_owned(),
            data: data.as_deref().map(hex::encode),
            before: before.as_deref().map(hex::encode),
            action,
        });
    }
    Ok(())
}
