"""What files state beside their samples is read: HDF5, numpy, DICOM and Sierra."""

import h5py
import numpy as np
import pydicom
from fixtures import write_vendor_files as vendor
from numpy.testing import assert_allclose

from ecgdan_hf.data import formats
from ecgdan_hf.model.configuration_ecgdan import STANDARD_LEADS


def test_scalars_and_attributes_of_groups_are_read_from_hdf5(tmp_path):
    signal = vendor.millivolt(vendor.counts())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("study/ecg/signal", data=signal)
        file["study/sampling_rate"] = 500.0
        file["study"].attrs["unit"] = "mV"
        file["study/ecg"].attrs["lead_names"] = ",".join(STANDARD_LEADS)
    record = formats.read(tmp_path / "a.h5")
    assert (record.sampling_rate, record.lead_names) == (500, STANDARD_LEADS)
    assert_allclose(record.signal_mv, signal, rtol=1e-6)


def test_the_nearest_attribute_counts(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("ecg/signal", data=vendor.millivolt(vendor.counts()))
        file.attrs.update(vendor.about() | {"lead_names": ",".join(STANDARD_LEADS), "sampling_rate": 250})
        file["ecg"].attrs["sampling_rate"] = 500
    assert formats.read(tmp_path / "a.h5").sampling_rate == 500


def test_rate_unit_and_leads_have_other_names_and_may_be_arrays_of_one(tmp_path):
    signal = vendor.millivolt(vendor.counts())
    np.savez(
        tmp_path / "a.npz", ecg=signal, fs=np.array([500]), units=np.array(["mV"]), leads=np.array(STANDARD_LEADS)
    )
    record = formats.read(tmp_path / "a.npz")
    assert (record.sampling_rate, record.lead_names) == (500, STANDARD_LEADS)


def test_a_skew_of_a_dicom_channel_is_flagged(tmp_path):
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(vendor.dicom(vendor.counts())))
    dataset.WaveformSequence[0].ChannelDefinitionSequence[7].ChannelSampleSkew = "2"
    dataset.save_as(tmp_path / "a.dcm")
    assert formats.read(tmp_path / "a.dcm").flags == ("channel_skew:V2",)


def sierra_103(values, beats):
    """A document of version 1.03: beats without rate and resolution, samples directly in `repbeat`."""
    items = "".join(
        f'<repbeat leadname="{lead}" duration="{1000 * row.size // vendor.RATE}">{vendor.b64(row)}</repbeat>'
        for lead, row in zip(STANDARD_LEADS, beats, strict=True)
    )
    return (
        vendor.sierra(values)
        .replace(b">1.04<", b">1.03<")
        .replace(b"<waveforms>", f'<waveforms><repbeats dataencoding="Base64">{items}</repbeats>'.encode())
    )


def test_a_sierra_beat_twice_too_large_is_halved_and_one_of_the_right_size_kept(tmp_path):
    values = vendor.counts()
    for factor, flag in ((2, "median_beat_rescaled:0.5"), (1, None), (40, "median_beat_unusable")):
        (tmp_path / "a.xml").write_bytes(sierra_103(values, factor * values[:, :500]))
        record = formats.read(tmp_path / "a.xml")
        assert [each for each in record.flags if each.startswith("median")] == ([flag] if flag else [])
        if factor == 40:
            assert record.median_beat_mv is None
        else:
            assert_allclose(record.median_beat_mv, vendor.millivolt(values[:, :500]), atol=1e-6)
