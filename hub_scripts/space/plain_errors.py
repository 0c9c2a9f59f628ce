"""Errors in a clinician's words: what to do about a file that could not be analysed."""

import re

NEEDED = {
    "sampling_rate": "how many samples it has per second (the sampling rate)",
    "unit": "the unit of its numbers (mV or uV)",
    "lead_names": "which leads it holds",
}
KNOWN = (
    (r"its data file is missing", "A part of the recording is missing: upload the .hea file together with its .dat."),
    (
        r"got a picture of an ECG",
        "This is a picture of an ECG. Pictures and scans cannot be read; export the ECG from the cart as a file (XML, "
        "DICOM, SCP-ECG) or as a PDF.",
    ),
    (
        r"got a PDF without long lines|names of leads beside the traces",
        "No ECG was found in this PDF; it may be a scan. Export the ECG from the cart as XML, DICOM or SCP-ECG.",
    ),
    (
        r"not a known ECG file|Waveform Sequence",
        "This is not an ECG file that can be read. Export the ECG from the cart as XML, DICOM, SCP-ECG or PDF.",
    ),
    (r"the file is empty", "The file is empty; export it again."),
    (r"truncated or damaged|damaged file", "The file is damaged or incomplete; export or copy it again."),
    (
        r"probably ADC counts|likely volt|values are likely",
        "The amplitudes are not those of an ECG in this unit: choose another unit under the file.",
    ),
    (
        r"expected at least 2\.4 s",
        "The recording is too short: at least 2.4 seconds are needed. Check the sampling rate.",
    ),
    (r"none of the leads .* is usable", "No lead holds an ECG: all are flat or missing."),
    (r"is no lead known here", "A lead name is not known here: use I, II, III, aVR, aVL, aVF and V1 to V6."),
    (r"expected numbers \(leads, samples\)", "The number of lead names is not the number of leads in the file."),
    (r"expected one ECG|several ECGs", "These files hold more than one ECG: upload one at a time."),
    (r"no heart ?beat", "No heart beat was found in the recording."),
)


def in_plain_words(message: str) -> str:
    """Returns what happened and what to do, without terms of programs; empty for errors that are not known here.

    >>> in_plain_words("a.csv: unit: the file does not say it; give --unit mV, uV or V")
    'The file does not say the unit of its numbers (mV or uV). Enter it under the file.'
    """
    if "the file does not say" in message:
        names = message.split("the file does not say")[0]
        needed = [words for name, words in NEEDED.items() if name in names]
        if needed:
            said = needed[0] if len(needed) == 1 else f"{', '.join(needed[:-1])} and {needed[-1]}"
            return f"The file does not say {said}. Enter {'it' if len(needed) == 1 else 'them'} under the file."
    return next((words for pattern, words in KNOWN if re.search(pattern, message)), "")
