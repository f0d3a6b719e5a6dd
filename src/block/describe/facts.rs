//! The facts of each format, read from its headers alone.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::info::{ImageInfo, SnapshotInfo, Specific, plain};
use crate::block::formats::extent_map::length;
use crate::block::open::new_chain;
use crate::block::{Format, OpenOptions, Storage, ova, qcow2, vdi, vhd, vhdx, vmdk};
use crate::error::{Error, ErrorCode, Layer, Result};

/// The facts of an image of a known format.
pub(super) fn of(storage: &Arc<dyn Storage>, path: &Path, format: Format) -> Result<ImageInfo> {
    match format {
        Format::Raw => Ok(plain(format, length(storage.as_ref())?.next_multiple_of(512))),
        Format::Qcow2 => of_qcow2(storage, path),
        Format::Vmdk => of_vmdk(storage, path),
        Format::Vhd => of_vhd(storage),
        Format::Vhdx => of_vhdx(storage),
        Format::Vdi => of_vdi(storage),
    }
}

/// The facts of an OVA: those of the chosen disk, or the names to choose from.
pub(super) fn ova(storage: &Arc<dyn Storage>, path: &Path, options: &OpenOptions) -> Result<ImageInfo> {
    let names = ova::disk_names(storage.as_ref())?;
    let chain = new_chain(options);
    let chosen = options.disk.as_deref().or(if let [only] = names.as_slice() { Some(only) } else { None });
    let Some(chosen) = chosen else {
        let mut info = plain(Format::Vmdk, 0);
        info.format = "ova".to_owned();
        info.disks = names;
        return Ok(info);
    };
    let image = ova::open(Arc::clone(storage), path, &chain, Some(chosen))?;
    let mut info = plain(image.format(), image.len());
    info.disks = names;
    Ok(info)
}

fn specific(kind: &'static str, data: Value) -> Option<Specific> {
    Some(Specific { kind, data })
}

fn of_qcow2(storage: &Arc<dyn Storage>, path: &Path) -> Result<ImageInfo> {
    let facts = qcow2::info_storage(Arc::clone(storage), path)?;
    let mut info = plain(Format::Qcow2, facts.virtual_size);
    info.cluster_size = Some(facts.cluster_size);
    info.dirty_flag = facts.is_dirty;
    info.backing_filename = facts.backing_name;
    info.backing_filename_format = facts.backing_format;
    info.snapshots = facts
        .snapshots
        .iter()
        .map(|s| SnapshotInfo {
            id: s.id.clone(),
            name: s.name.clone(),
            vm_state_size: s.vm_state_bytes,
            date_sec: s.date_seconds,
            date_nsec: s.date_nanoseconds,
            vm_clock_sec: s.run_time_nanoseconds / 1_000_000_000,
            vm_clock_nsec: s.run_time_nanoseconds % 1_000_000_000,
        })
        .collect();
    let mut data = json!({
        "compat": if facts.version == 2 { "0.10" } else { "1.1" },
        "compression-type": facts.compression.name(),
        "refcount-bits": facts.refcount_bits,
    });
    if facts.version > 2 {
        data["lazy-refcounts"] = facts.lazy_refcounts.into();
        data["corrupt"] = facts.is_corrupt.into();
        data["extended-l2"] = facts.extended_l2.into();
    }
    if let Some(name) = facts.data_file_name {
        data["data-file"] = name.into();
        data["data-file-raw"] = facts.data_file_raw.into();
    }
    if !facts.bitmaps.is_empty() {
        let flags = |b: &qcow2::Bitmap| {
            let all = [("in-use", b.is_inconsistent), ("auto", b.is_recording)];
            all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect::<Vec<_>>()
        };
        let bitmaps = facts.bitmaps.iter();
        data["bitmaps"] =
            bitmaps.map(|b| json!({"name": b.name, "granularity": b.granularity, "flags": flags(b)})).collect();
    }
    info.format_specific = specific("qcow2", data);
    Ok(info)
}

fn of_vmdk(storage: &Arc<dyn Storage>, path: &Path) -> Result<ImageInfo> {
    let file = path.display().to_string();
    let vmdk::Info { descriptor, extent: own } = vmdk::info(storage)?;
    let Some(descriptor) = descriptor else {
        let own = own.ok_or_else(|| {
            Error::unsupported(Layer::Block, "this file is one extent of a VMDK, not the disk")
                .with_code(ErrorCode::VmdkExtent)
                .hint("give the small descriptor file (NAME.vmdk)")
        })?;
        let mut info = plain(Format::Vmdk, own.size);
        info.cluster_size = Some(own.grain_size);
        return Ok(info);
    };
    let sectors: u64 = descriptor.extents.iter().fold(0, |sum, e| sum.saturating_add(e.sectors));
    let size = own.as_ref().map_or(sectors.saturating_mul(512), |own| own.size);
    let extents: Value = match &own {
        Some(own) => {
            let mut extent =
                json!({"filename": file, "virtual-size": own.size, "cluster-size": own.grain_size, "format": ""});
            if own.is_compressed {
                extent["compressed"] = true.into();
            }
            json!([extent])
        }
        None => descriptor
            .extents
            .iter()
            .map(
                |e| json!({"filename": e.file, "virtual-size": e.sectors.saturating_mul(512), "format": e.kind.name()}),
            )
            .collect(),
    };
    let mut info = plain(Format::Vmdk, size);
    info.cluster_size = own.as_ref().map(|own| own.grain_size);
    info.compressed = own.is_some_and(|own| own.is_compressed);
    info.backing_filename = descriptor.parent_cid.and(descriptor.parent_hint);
    info.format_specific = specific(
        "vmdk",
        json!({
            "cid": descriptor.cid,
            "parent-cid": descriptor.parent_cid.unwrap_or(u32::MAX),
            "create-type": descriptor.create_type,
            "extents": extents,
        }),
    );
    Ok(info)
}

fn of_vhd(storage: &Arc<dyn Storage>) -> Result<ImageInfo> {
    let facts = vhd::info(storage)?;
    let mut info = plain(Format::Vhd, facts.size);
    info.cluster_size = facts.block_size;
    info.backing_filename = facts.parent;
    info.format_specific =
        specific("vpc", json!({"disk-type": facts.kind, "creator": facts.creator, "unique-id": facts.unique_id}));
    Ok(info)
}

fn of_vhdx(storage: &Arc<dyn Storage>) -> Result<ImageInfo> {
    let facts = vhdx::info(storage)?;
    let mut info = plain(Format::Vhdx, facts.size);
    info.cluster_size = Some(facts.block_size);
    info.dirty_flag = facts.has_log;
    info.backing_filename = facts.parent;
    info.format_specific = specific(
        "vhdx",
        json!({"disk-type": facts.kind, "logical-sector-size": facts.sector, "log-to-replay": facts.has_log}),
    );
    Ok(info)
}

fn of_vdi(storage: &Arc<dyn Storage>) -> Result<ImageInfo> {
    let facts = vdi::info(storage)?;
    let mut info = plain(Format::Vdi, facts.size);
    info.cluster_size = Some(facts.block_size);
    Ok(info)
}
