"""Every word that the interfaces show: labels, help, messages. One word for one thing."""

from __future__ import annotations

import re

from univg.errors import InputError
from univg.types import Modality

APP = "UniVG"
TITLE = "UniVG - vessel segmentation from five images"
FOOTER = "Research use. Not a medical device."
UNEXPECTED = "Something went wrong that UniVG did not expect ({kind}). Nothing you entered was lost; please try again."
CHECK_THIS = "Please check"
PAGE_FORGOTTEN = "This page was not used for hours, or many others were opened since"
PAGE_FORGOTTEN_FIX = "Reload this page to go on; projects and jobs are as they were."

MODALITIES = {
    Modality.FUNDUS: "Fundus photograph",
    Modality.OCTA: "OCT angiography, en face",
    Modality.OCT: "OCT, en face",
    Modality.BRAIN_DSA: "Brain DSA",
    Modality.CORONARY_DSA: "Coronary DSA",
}

# Header
NO_PROJECT = "No project open"
SWITCH_PROJECT = "Projects"
BACK_TO_PROJECT = "Back"
THEME = "Light / dark"
CANCEL = "Cancel"
CPU = "CPU, {cores} {noun}"
GPU = "{name}, free {free:.0f} MiB"
JOB_CHIP = "{what} {percent} %"
CHIP_LEFT = "{time} left in this stage"
JOB_KINDS = {
    "adapt": "Adapting",
    "generate": "Drawing pairs",
    "image-engine": "Adapting the image engine",
    "mask-engine": "Adapting the mask engine",
    "retrain": "Retraining",
    "trees": "Growing trees",
    "selftest": "Checking",
}
JOB_RUNNING = "This project has a job at work already: {job}"
JOB_RUNNING_FIX = "Wait for it, or cancel it first."
WAITING = "Waiting for the device"
WAITING_BEHIND = "Waiting for the device, {count} {noun} ahead"
CANCELLING = "Stopping after this step"

# Start view
WELCOME = "Five annotated images in, a vessel segmenter out."
WELCOME_HELP = "Everything stays on this computer. Open a project, create one, or look around with the sample."
OPEN_TITLE = "Open a project"
OPEN_RECENT = "Project"
OPEN_RECENT_HELP = "Projects in {folder}"
OPEN_PATH = "or its folder"
OPEN_PATH_HELP = "A folder that holds a project.json"
OPEN_BUTTON = "Open"
CREATE_TITLE = "Create a project"
CREATE_NAME = "Name or folder"
CREATE_NAME_HELP = "A name is put in {folder}; no patient name, please"
CREATE_MODALITY = "Kind of image"
CREATE_MODALITY_HELP = "All images of a project are of one kind"
CREATE_BUTTON = "Create"
SAMPLE_TITLE = "Sample project"
SAMPLE_HELP = (
    "Five annotated fundus images and two unseen ones, all made by this software: no patient is shown. "
    "You get your own copy."
)
SAMPLE_BUTTON = "Open the sample"
SAMPLE_NAME = "Sample"

# Guide to the first steps
GUIDE_TITLE = "First steps"
GUIDE_BUTTON = "Guide"
GUIDE_STEPS = (
    # (name, what to do); {tab} is the tab that the step happens in
    ("Open", "Press “Open the sample”: five annotated images that this software made up. Or open a project of yours."),
    ("Data", "Look at the annotated images in {tab}: the strip below the picture chooses one, orange is its mask."),
    ("Adapt", "In {tab}, leave the effort at Preview and press Adapt. It goes on when you close this page."),
    ("Watch", "Trees, synthetic pairs and the image kept apart change in {tab} while the model learns."),
    ("Segment", "In {tab}, press “Use the sample’s unseen images” or drop your own, then Segment. Hold B to compare."),
)
# where the sample's images are of another kind
GUIDE_SEGMENT_OWN = "In {tab}, drop images of yours, then press Segment. Hold B to compare."
GUIDE_DONE = "That was all: this model is ready for images of yours. Trees and Masks show how it is made."
GUIDE_SHOW = "Show me"
GUIDE_NEXT = "Got it"
GUIDE_CLOSE = "Close the guide"
GUIDE_CLOSED = "The guide will not come up again; the button Guide above brings it back."
GUIDE_STATES = {"done": "done", "now": "now", "todo": "to come"}

# Tabs
TAB_DATA = "Data"
TAB_TREES = "Trees"
TAB_MASKS = "Masks"
TAB_IMAGES = "Images"
TAB_ADAPT = "Adapt"
TAB_REVIEW = "Review"
TAB_SEGMENT = "Segment"
TAB_MARKS = {"empty": "○", "ready": "●", "running": "◌", "stale": "◐", "done": "✓"}
NEXT_ADAPT = "Next: Adapt"
NEXT_SEGMENT = "Next: Segment"
ADVANCED = "Advanced"

# Data
DATA_EMPTY_TITLE = "No annotated image yet"
DATA_EMPTY = (
    "Drop your images and their masks at the left: five pairs are best. Or open the sample project to look around."
)
DATA_DAMAGED = "The files of “{name}” cannot be read: {reason}. Remove it, then add it again."
DATA_READY = "Go on with “{adapt}”, or drop your own five images."
DATA_COUNT = "{count} annotated {noun}"
DATA_COUNT_HINT = {
    0: "five are best",
    1: "add at least one more",
    2: "five are best",
    3: "five are best",
    4: "five are best",
}
ADD_TITLE = "Add images and masks"
ADD_IMAGES = "Images"
ADD_MASKS = "Masks of the same names"
ADD_HELP = (
    "PNG, JPEG, TIFF, BMP, GIF, PPM, WebP or DICOM. image1.png belongs to mask image1.png or image1_mask.png; "
    "vessels are the brighter of two values."
)
ADD_GREY = "Cut grey masks at half"
ADD_GREY_HELP = "Values above half of the range become vessel"
ADD_BUTTON = "Add to the project"
ADD_BUTTON_COUNT = "Add {count} {noun} to the project"
ADDED = "{count} {noun} added."
ALREADY_THERE = "{count} {noun} already in the project."
LEVELS = {"ok": ("✓", "OK"), "warning": ("▲", "Note"), "error": ("✕", "Not usable")}
MASK_NAME_FORGIVEN = "Mask {mask} is taken as the mask of {image}."
IMAGE_WITHOUT_MASK = "There is no mask for this image."
IMAGE_WITHOUT_MASK_FIX = "Drop its mask too, or press Paint."
MASK_WITHOUT_IMAGE = "There is no image for this mask."
MASK_WITHOUT_IMAGE_FIX = "Drop an image of the same name."
SAME_NAME = "Another {what} has this name."
SAME_NAME_FIX = "Rename one of the two files."
NAME_TAKEN = "The project already holds a pair of this name."
NAME_TAKEN_FIX = "Rename the files if these are others; an identical pair is skipped."
TWO_VALUES_FIX = "Export it again as a PNG with two values."
GREY_FIX = "Tick “{label}” below, or export it again with two values."
FRAMES_FIX = "Export the frame you need as a PNG."
FRAMES = "The file holds {frames} frames or pages; one image is needed"
NOTHING_TO_ADD = "There is no usable pair to add"
NOTHING_TO_ADD_FIX = "Drop images and masks, and see the list of findings."
SELECTED = "Selected image"
VIEW_OPACITY = "Opacity (%)"
VIEW_OPACITY_HELP = "Of the mask"
VIEW_OUTLINE = "Outline only"
PAINT_BUTTON = "Paint its mask"
PAINT_NEW_BUTTON = "Paint a mask on {name}"
REMOVE_BUTTON = "Remove"
REMOVED = "“{name}” was removed. It is kept in the project; Undo brings it back."
UNDO_REMOVE = "Undo: bring back {name}"
RESTORED = "“{name}” is back."
NO_SELECTION = "No image is selected"
NO_SELECTION_FIX = "Choose one in the strip below the picture."
PAINT_TITLE = "Paint a mask"
PAINT_TARGET = "Image"
PAINT_TARGET_HELP = "Of the project, or dropped without a mask"
PAINT_NEW = "{name} (no mask yet)"
PAINT_FROM_MASK = "Start from the present mask"
PAINT_FROM_MASK_HELP = "Off: start from an empty one. Strokes on either are kept."
PAINT_HELP = (
    "Brush, eraser and their sizes are at the left of the picture; zoom, undo and redo above it. "
    "The mask is saved pixel for pixel at the size of the image, {width} × {height}."
)
PAINT_SAVE = "Save the mask"
PAINT_CLOSE = "Close"
PAINT_SAVED = "The mask of “{name}” is saved. The one before is kept in the project."
PAINT_SAVED_NEW = "“{name}” with its mask is now in the project."
PAINT_UNCHANGED = "The mask of “{name}” is as it was."
PAINT_DRAFT = "Your unsaved strokes on “{name}” were kept."
PAINT_DRAFT_DROPPED = "Your unsaved strokes on “{name}” were dropped: its mask is another one now."
PAINT_EMPTY = "Nothing is painted yet"
PAINT_EMPTY_FIX = "Draw over the vessels, then save."
PAINT_TOO_LARGE = "This image is {width} × {height}; the painter holds at most {limit} pixels a side"
PAINT_TOO_LARGE_FIX = "Draw its mask in another program and drop it here."
PAINT_REMOVED = "“{name}” was removed from the project meanwhile"
PAINT_REMOVED_FIX = "Your strokes are kept: close the painter, press Undo, then paint on it again."
PAINT_OTHER_IMAGE = "Another image is called “{name}” in the project now than the one you painted on"
PAINT_OTHER_IMAGE_FIX = "Your strokes are kept for the image they are on. Close the painter to go on."
PAINT_OTHER_MASK = "The mask of “{name}” was changed meanwhile, by another page or program"
PAINT_OTHER_MASK_FIX = "Save again to put yours in its place; the other one is kept in the project folder."
PAINT_OTHER_SIZE = "The painted mask is {got}, the image {expected}"
PAINT_OTHER_SIZE_FIX = "Close the painter and open it again."
PAINT_TURNING = "The image is not on the canvas yet"
PAINT_TURNING_FIX = "Press again once you see it."
PAINT_NO_TARGET = "There is no image to paint on"
PAINT_NO_TARGET_FIX = "Drop one under Images first."

# Trees
TREES_SOURCE = "Grow from"
TREES_SOURCE_HELP = "A mask of yours guides the vessels; a preset needs none"
TREES_SOURCE_MASK = "Mask of {name}"
TREES_SOURCE_PRESET = "Preset: {name}"
TREE_PRESETS = {
    "fundus": "fundus",
    "octa": "OCTA",
    "oct": "OCT",
    "brain-dsa": "brain, carotid artery",
    "coronary-right": "right coronary artery",
    "coronary-left": "left coronary artery",
}
TREES_RECIPE = "Parameters"
TREES_RECIPE_HELP = "Sets all sliders at once"
TREES_RECIPES = {"natural": "Natural, along a mask", "paper": "As in the paper (Da 20, Dk 10, Ls 15)"}
TREES_RECIPE_OWN = "Yours: {name}"
TREES_RECIPE_CHANGED = "Changed by hand"
TREE_SLIDERS = {
    # field of SCAConfig: (label, help, lowest, highest, step)
    "attraction_distance": ("Attraction distance (px)", "How far points pull", 5, 150, 1),
    "kill_distance": ("Kill distance (px)", "Less gives denser twigs", 2, 40, 0.5),
    "segment_length": ("Segment length (px)", "Of one step of growth", 1, 20, 0.5),
    "grid_spacing": ("Spacing of points (px)", "Away from your vessels", 6, 80, 1),
    "tortuosity": ("Tortuosity", "0 is straight", 0, 0.5, 0.01),
    "tip_radius": ("Tip radius (px)", "Of the thinnest twigs", 0.3, 4, 0.1),
    "murray_exponent": ("Murray exponent", "2 keeps area, 3 is Murray's", 2, 3, 0.05),
    "direction_noise": ("Irregularity", "Randomness of each step", 0, 1, 0.05),
    "grid_fraction": ("Share of grid used", "More vessels off yours", 0, 1, 0.01),
    "vessel_fraction": ("Share of your vessels used", "Of the centreline of the mask", 0, 1, 0.05),
    "warp_amplitude": ("Deformation of the mask (px)", "0 follows your vessels exactly", 0, 30, 0.5),
    "smoothing": ("Smoothing (passes)", "Along each vessel", 0, 20, 1),
    "prune_length": ("Shortest branch (px)", "Shorter ones are removed", 0, 40, 1),
    "calibre_noise": ("Calibre variation", "From branch to branch", 0, 1, 0.05),
    "capillary_spacing": ("Capillaries (px)", "Width of their mesh; 0 is none", 0, 40, 1),
    "taper": ("Taper (share per 100 px)", "Widening towards the base", 0, 0.5, 0.01),
}
TREES_MAIN = 7
TREES_ROOT_OUTSIDE = "A root lies outside the picture or the boundary, or on an obstacle"
TREES_CLOSED = "Closed loops"
TREES_CLOSED_HELP = "Join tips to the vessel ahead"
TREES_UNIT_HELP = "Pixels are those of a frame of 512; larger images scale them."
TREES_CLICK = "A click adds"
TREES_CLICKS = {"root": "Root", "obstacle": "Obstacle", "boundary": "Boundary"}
TREES_CLOSE = "Close shape"
TREES_UNDO = "Undo"
TREES_CLEAR = "Clear"
TREES_NOTHING_TO_UNDO = "There is nothing to undo"
TREES_TOO_FEW = "A shape needs at least three corners, got {got}"
TREES_TOO_FEW_FIX = "Click more corners on the picture first."
TREES_SHOW = "Show on"
TREES_SHOWS = {"image": "Image", "mask": "Mask", "black": "Black"}
TREES_SEED_HELP = "The same number draws the same tree"
TREES_REROLL = "Reroll"
TREES_LOCK = "Lock the seed"
TREES_LOCKED = "The seed is locked"
TREES_LOCKED_FIX = "Untick “{lock}” first."
TREES_ANIMATE = "Watch it grow"
TREES_VARIATIONS = "Nine variations"
TREES_VARIATIONS_HELP = "Choose one to go on with its seed."
TREES_COMPARE = "Compare with masks"
TREES_COMPARE_NEEDS = "There is no mask to compare with"
TREES_COMPARE_FIX = "Add annotated images under Data first."
TREES_COMPARED = (
    "{generated} generated trees against {real} masks of yours. Distance: 0 is equal, 1 is as far apart as the middle "
    "half of yours is wide."
)
TREES_QUANTITIES = {
    "vessel_density": "Vessel density (share of the frame)",
    "segment_diameter": "Diameter (px)",
    "branching_angle": "Branching angle (°)",
    "tortuosity": "Tortuosity (length / chord)",
    "fractal_dimension": "Fractal dimension",
}
TREES_GENERATED, TREES_REAL = "generated", "yours"
TREES_DISTANCE = "distance {distance:.2f}"
TREES_COUNT_LABEL = "How many"
TREES_SAVE_MANY = "Save this many to the project"
TREES_SAVED = "Growing {count} {noun} into “{folder}” of the project."
TREES_MANY_TITLE = "Many trees"
TREES_ALL_MASKS = "Along all masks in turn"
TREES_ALL_MASKS_HELP = "Else along the one chosen, or from the preset"
TREES_PRESETS_TITLE = "Presets and files"
TREES_PRESET_NAME = "Name of a preset of yours"
TREES_PRESET_SAVE = "Save the parameters"
TREES_PRESET_SAVED = "The parameters are saved as “{name}”."
TREES_DROP = "Drop a picture, tree or preset saved here to restore it"
TREES_RESTORED = "The tree of that file is back."
TREES_RESTORED_OTHER_MASK = "Its mask “{name}” is not in this project as it was then, so the tree may differ."
TREES_OTHER_MODALITY = "This file is of the kind “{theirs}”, the project “{ours}”"
TREES_OTHER_MODALITY_FIX = "Open a project of that kind."
TREES_GET_MASK = "Mask (PNG)"
TREES_GET_TREE = "Tree (JSON)"
TREES_GET_SWC = "Tree (SWC)"
TREES_FACTS = "{nodes} nodes, {roots} {noun}, {density:.1f} % of the frame; grown in {ms:.0f} ms."
TREES_COPY = "Nearly a copy of the mask: Dice {dice:.2f}. Raise the deformation or lower the share of vessels used."
TREES_MURRAY = "Murray's law kept (exponent 2)"
TREES_MURRAY_HELP = "Mean over all bifurcations, 100 % keeps it exactly"
TREES_MURRAY_THIS, TREES_MURRAY_YOURS = "this tree", "your masks"
TREES_LEGEND = {"tree": "vessels", "root": "root", "obstacle": "obstacle", "boundary": "boundary"}
TREES_EMPTY = "Open a project to grow trees."
SAVED_TREES = "{count} {noun} in {folder}"

# Masks
MASKS_ADAPT = "Adapt to my masks"
MASKS_SCALE = "Strength α"
MASKS_SCALE_HELP = "0 is the pretrained engine, 1 the adapted one"
MASKS_START = "Start from"
MASKS_STARTS = {"tree": "A grown tree", "noise": "Noise"}
MASKS_STRENGTH = "Change of the tree"
MASKS_STRENGTH_HELP = "0 keeps the tree, 1 forgets it"
MASKS_STEPS = "Denoising steps"
MASKS_STEPS_HELP = "More take longer and are a little cleaner"
MASKS_ENGINE = "Engine"
MASKS_PRETRAINED = "Pretrained, before your masks"
MASKS_ADAPTER = "Adapter"
MASKS_ADAPTER_HELP = "How the engine is changed; LoHa is the paper's choice"
MASKS_ADAPTERS = {"loha": "LoHa", "lora": "LoRA", "lora+loha": "LoRA, then LoHa"}
MASKS_TREE_CAPTION = "The tree it starts from"
MASKS_REAL_CAPTION = "Your masks"
MASKS_SWEEP = "Sweep α"
MASKS_CHANGED = "The annotated images or the engine were changed while these masks were drawn"
MASKS_CHANGED_FIX = "Press “{sweep}” again."
MASKS_COMPARE = "Compare with masks"
MASKS_ALPHA = "α {scale:.2f}"
MASKS_AT = "Mask at α {scale:.2f}"
MASKS_NEAREST = "Nearest drawn so far: α {scale:.2f}; let go for the exact one"
MASKS_PRESS = "A mask is drawn when this tab is opened or a control is let go; the first takes a few seconds."
MASKS_FACTS = "{density:.1f} % of the frame; drawn in {seconds:.1f} s."
MASKS_NOT_ADAPTED = "Not adapted to your masks yet: α has no effect."
MASKS_COPY = "Nearly a copy of one of your masks: Dice {dice:.2f}. Lower α or raise the change of the tree."
MASKS_COPIES = "Most similar mask of yours: median Dice {median:.2f}; {near} of {count} are nearly copies."
MASKS_GROUPS = {"trees": "trees", "engine": "engine"}
MASKS_MAP = "Where vessels lie, in two principal components"
MASKS_READY = (
    "Teaches the engine the look of your masks, in a job of its own; all but the one that models are compared on."
)
MASKS_DONE = "Engine {mask_engine} is ready."
MASKS_DONE_NEAREST = "Most similar mask of yours: median Dice {dice:.2f}."

# Engines
ENGINES_NEED_PAIRS = "Add annotated images under Data first; the engine learns from them."
ENGINES_GO_ON = "Go on adapting"
ENGINES_ANEW = "Start anew"
ENGINES_CANCELLED = "Cancelled."
ENGINES_GOES_ON = "“Go on adapting” takes it up where it stopped, as it was started; “Start anew” as is chosen here."
ENGINES_OTHER_PAIRS = "The annotated images have changed since, so it has to begin anew."
ENGINES_RUNNING = "{stage}: {percent} %, {left}."
ENGINE_STAGES = {
    "mask engine": "Learning your masks",
    "image engine": "Learning your images",
    "segmenter": "Training the judge of images",
    "masks": "Drawing masks",
    "images": "Drawing images",
    "check": "Checking",
}

# Images
IMAGES_ADAPT = "Adapt to my images"
IMAGES_READY = (
    "Teaches the engine the look of your images, in a job of its own; all but the one that models are compared on."
)
IMAGES_DONE = "Engine {image_engine} is ready."
IMAGES_DONE_COMPARED = (
    "A segmenter trained on your images alone finds the masks again in drawn images with Dice {agreement:.2f}, in a "
    "real image that it had not seen with {expected_agreement:.2f}."
)
IMAGES_DONE_AGREES = (
    "A segmenter trained on your images alone finds the masks again in drawn images with Dice {agreement:.2f}. It kept "
    "no real image apart to compare that with."
)
IMAGES_SOURCE = "Mask"
IMAGES_SOURCE_HELP = "What the image is drawn of"
IMAGES_SOURCE_NEW = "A new one, by seed"
IMAGES_SOURCE_DRAWN = "The one drawn or dropped"
IMAGES_SOURCE_HELD = "The one of the four looks"
IMAGES_SOURCE_OWN = "Yours: {name}"
IMAGES_CONDITIONING = "Conditioning"
IMAGES_CONDITIONING_HELP = "How strongly the mask decides the image: 0 not at all, 1 as learnt"
IMAGES_STRENGTH = "Noise over the start"
IMAGES_STRENGTH_HELP = "1 draws from noise alone; less begins with the mask drawn on one of your backgrounds"
IMAGES_OVERLAY = "Show the mask on the image"
IMAGES_OVERLAY_HELP = "Its outline, to check that vessels lie where the mask says"
IMAGES_MASK_CAPTION = "The mask"
IMAGES_REAL_CAPTION = "Your images"
IMAGES_LATEST = "The newest pairs of the project"
IMAGES_CAPTION = "Synthetic image, seed {seed}, conditioning {conditioning:.2f}"
IMAGES_PRESS = "An image is drawn when this tab is opened or a control is let go; the first takes a few seconds."
IMAGES_SECONDS = "Drawn in {seconds:.1f} s."
IMAGES_PRETRAINED_FACTS = "Not adapted to your images yet: the look is that of the pretrained engine."
IMAGES_FACTS = "Found again with Dice {agreement:.2f}."
IMAGES_CONTRAST = "Centrelines stand out by {contrast:.1f} SD."
IMAGES_FLAGS = {
    "disagrees": "Image and mask disagree.",
    "faint": "Vessels are faint or have the wrong polarity.",
    "broken": "The mask falls into more pieces than yours.",
    "copied mask": "The mask is nearly a copy of one of yours.",
    "copied image": "The image is nearly a copy of one of yours.",
    "near-duplicate": "It nearly repeats an earlier pair.",
}
IMAGES_LOOKS = "Four looks"
IMAGES_SEED = "seed {seed}"
IMAGES_CONDITIONS = "Show conditions"
IMAGES_CONDITION_OF = "{name}: {condition}"
IMAGES_CONDITION_NAMES = {
    "mask": "vessel mask (used)",
    "vesselness": "vesselness",
    "canny": "Canny",
    "lineart": "line art",
    "shuffle": "shuffle",
}
IMAGES_MANY_TITLE = "Many pairs"
IMAGES_COUNT = "How many pairs"
IMAGES_GENERATE = "Draw pairs into the project"
IMAGES_PAIRS_FIRST = "Adapt the engine first."
IMAGES_NO_PAIRS = "No pairs yet. Each is a new mask and an image of it, checked against one another."
IMAGES_PAIRS = "{count} {noun} in the project, {flagged} flagged by the checks."
IMAGES_NOT_ADAPTED = "The image engine is not adapted to your images yet"
IMAGES_NOT_ADAPTED_FIX = "Press “Adapt to my images” first."
IMAGES_PRETRAINED_PAIRS = "Pairs are drawn by an engine adapted to your images; “{chosen}” is on screen"
IMAGES_PRETRAINED_PAIRS_FIX = "Choose an adapted one as “{engine}” under Advanced."
IMAGES_DRAW_TITLE = "Draw a mask, or drop one"
IMAGES_DRAW_HELP = "White is vessel. Press one of the beginnings below first."
IMAGES_DRAW_BEGIN = "Begin with the mask above"
IMAGES_DRAW_EMPTY = "Begin with an empty canvas"
IMAGES_DRAW_FIX = "Begin with the mask above or with an empty canvas, then draw in white."
IMAGES_DRAW_USE = "Use this mask"
IMAGES_DROP = "Drop a mask file"
IMAGES_DROP_EMPTY = "This mask is empty"
IMAGES_DROP_EMPTY_FIX = "Choose one with vessels."

# Review
REVIEW_ACCEPT, REVIEW_REJECT, REVIEW_UNDO = "Accept (A)", "Reject (R)", "Undo (U)"
REVIEW_NOTE = "Note"
REVIEW_NOTE_HELP = "Kept with the next verdict"
REVIEW_FILTER = "Show"
REVIEW_FILTERS = {
    "all": "All",
    "undecided": "Undecided",
    "flagged": "Flagged",
    "accepted": "Accepted",
    "rejected": "Rejected",
}
REVIEW_SORT = "Order"
REVIEW_SORTS = {
    "flagged": "Flagged first",
    "agreement": "Least agreement first",
    "pieces": "Most pieces first",
    "contrast": "Faintest first",
    "likeness": "Most like one of yours first",
    "twins": "Near-duplicates together",
    "name": "By name",
}
REVIEW_FLAG = "Flag"
REVIEW_ANY_FLAG = "Any or none"
REVIEW_FLAGS = {
    "disagrees": "Image and mask disagree",
    "broken": "Broken tree",
    "faint": "Low contrast",
    "copied mask": "Copy of your mask",
    "copied image": "Copy of your image",
    "near-duplicate": "Near-duplicate",
}
REVIEW_TWIN = "It is {twin}."
REVIEW_VERDICTS = {"accepted": "accepted", "rejected": "rejected", "undecided": "undecided"}
REVIEW_BULK = "All that are listed"
REVIEW_ACCEPT_ALL = "Accept all listed"
REVIEW_REJECT_ALL = "Reject all listed"
REVIEW_BULK_DONE = "{count} {noun} {verb} {verdict} now. Undo takes that back."
REVIEW_RETRAIN = "Train again with these verdicts"
REVIEW_GO_ON = "Go on with the stopped training"
REVIEW_READY = "{count} {noun} would train now: preview takes about {preview}, standard about {standard}."
REVIEW_QUEUED = "Waiting for the device: another job is using it."
REVIEW_RUNNING = "Training: {percent} %, {left}."
REVIEW_OPACITY = "Mask opacity (%)"
REVIEW_IMAGE, REVIEW_OVERLAY = "Synthetic image", "with its mask; hold B to blink"
REVIEW_MASK = "Its mask alone"
REVIEW_LEFT = "Left picture"
REVIEW_LEFTS = {"image": "Image", "mask": "Mask"}
REVIEW_ALT = "Synthetic image {name}"
REVIEW_AT = "Pair {at} of {count}."
REVIEW_AGREEMENT = "Agreement {agreement:.2f} (Dice)."
REVIEW_NOTED = "Note: {note}"
REVIEW_PAGE = "Page {page} of {pages}, {all} pairs listed"
REVIEW_COUNT = "{judged} of {all} judged"
REVIEW_TALLY = "{accepted} accepted, {rejected} rejected, {flagged} flagged"
REVIEW_KEYS_LINE = "Keys: A accept, R reject, U undo, ← → previous and next; ? lists all."
REVIEW_KEYS_TITLE, REVIEW_KEYS_CLOSE = "Keys", "Close"
REVIEW_KEYS = (
    ("A", "accept, and go on to the next pair"),
    ("R", "reject, and go on to the next pair"),
    ("U", "undo the last verdict, or the last judgement of all that are listed"),
    ("← →", "previous and next pair"),
    ("B", "blink: the mask is hidden while the key is held"),
    ("O", "mask on or off"),
    ("M", "the mask alone in place of the image"),
    ("+ -", "larger and smaller; the pointer moves over what is enlarged"),
    ("Shift ← → ↑ ↓", "move over what is enlarged"),
    ("?", "this list"),
)
REVIEW_LOST = "The server did not answer; this verdict is not on record. Is it still running? Reload the page."
REVIEW_LEFT_ALONE = "{count} {noun} {verb} judged again since, in another tab or program: that verdict stays."
REVIEW_TALLY_FLAG = "{text}: {n}"
REVIEW_EXPORT = "Hand on"
REVIEW_FORMAT = "Format"
REVIEW_FORMATS = {"folder": "Plain folder", "nnunet": "nnU-Net v2", "coco": "COCO"}
REVIEW_EXPORT_BUTTON = "Download real and synthetic pairs"
REVIEW_EMPTY_TITLE = "No synthetic pairs yet"
REVIEW_EMPTY = "Adapt the image engine in the Images tab and draw pairs there, or adapt with the full effort."
REVIEW_NONE_TITLE = "No pair is like that"
REVIEW_NONE = "Choose another filter on the left."
_ONE_IMAGE = "One held-out image is too few to tell a small difference from chance."
REVIEW_CHANGED = {
    "first": "Model {new} was trained with {pairs} pairs; there is none to compare it with.",
    "better": (
        "Model {new}, {pairs} pairs: held-out Dice {before:.3f} before, {after:.3f} now; {active} is in use. "
        + _ONE_IMAGE
    ),
    "worse": (
        "Model {new}, {pairs} pairs: held-out Dice {before:.3f} before, {after:.3f} now; {active} is in use. "
        "Segment lets you choose. " + _ONE_IMAGE
    ),
    "not comparable": (
        "Model {new}, {pairs} pairs; {active} is in use. No comparison: the model before did not keep the same image "
        "with the same mask apart."
    ),
}
CHANGED_TITLE = "What changed"
CHANGED_NOTHING = "Train again with your verdicts; this shows then what they changed on the image that was kept apart."
CHANGED_HEAD = (
    ("on “{image}” (n = 1)", "The annotated image that both models kept apart; figures from before it joined"),
    ("before: {version}", ""),
    ("after: {version}", ""),
    ("difference", "After minus before"),
)
CHANGED_ROWS = {"dice": "Dice", "cldice": "clDice"}
CHANGED_BEFORE, CHANGED_AFTER = "before: {version}", "after: {version}"
CHANGED_ALT = "Held-out image with what model {version} found, missed and added"
CHANGED_CHANCE = (
    "Too few images to tell: resampling tiles of this one image puts the difference in Dice between {low:+.3f} and "
    "{high:+.3f} (95 %), which includes none at all."
)
CHANGED_CLEAR = (
    "On this image the difference in Dice is between {low:+.3f} and {high:+.3f} (95 %, tiles of it resampled). It is "
    "one image: how other images change cannot be told from it, nor what another seed would have given."
)
CHANGED_FIRST = "There is no earlier model to compare {after} with."

# Models
MODELS_TITLE = "Compare models"
MODELS_HEAD = (
    ("model", "None is ever deleted"),
    ("Dice", "On the frozen image, from before it joined the training of that model"),
    ("clDice", "On the frozen image; of centre lines"),
    ("pairs", "Annotated + synthetic ones that it was trained on"),
    ("made", "Local time"),
    ("in use", ""),
)
MODELS_ON = "Figures on “{image}”, the same image for all (n = 1): it tells large differences only."
MODELS_NO_IMAGE = "No image was kept apart, so the models cannot be compared."
MODELS_PAIRS = "{real} + {synthetic}"
MODELS_IN_USE = "✓ in use"
MODELS_USE = "Use"
MODELS_USE_LABEL = "Use model {version} from now on"
MODELS_REASONS = {
    "trained on it": "trained on that image",
    "another mask": "it or its mask was another one",
    "not held out": "kept no image apart",
}
MODELS_BACK = "Undo: back to {version}"

# Adapt
PRESET = "Effort"
PRESET_HELP = "Minutes are estimates for this computer when nothing else uses it"
PRESETS = {
    "preview": "Preview, about {minutes}: a first useful overlay",
    "standard": "Standard, about {minutes}: a longer training, for better masks",
    "full": "Full, about {minutes}: both engines adapted, a training on pairs they drew",
}
FULL_LENGTH = "Full length"
FULL_LENGTH_HELP = (
    "To save time this computer trains for {shorter:,} of {steps:,} steps; with all of them a run takes about {minutes}"
)
PRESET_NAMES = {"preview": "Preview", "standard": "Standard", "full": "Full"}
PRESET_BASELINE = "Baseline"
PRESET_BASELINE_HELP = (
    "In place of the effort above: real images only, no synthetic pairs, none held out, about {minutes}"
)
MINUTES = ("{n} minute", "{n} minutes")
ADAPT_BUTTON = "Adapt"
ADAPT_FROM = "Adapt again from “{stage}”"
RESUME_BUTTON = "Resume"
GO_ON_BUTTON = "Go on"
PREFLIGHT_WAIT = "Looking at the images and this computer …"
PREFLIGHT_OK = "Checked: {count} images and this computer are fine."
PREFLIGHT_WORDS = {
    # as the command line says it: as the page does
    "the standard preset": "the effort Standard",
    "the device cpu, or auto": "CPU as the device, or Automatic",
}
PREFLIGHT_SUBJECTS = {"set": "Images", "this computer": "This computer"}
REVIEW_PAUSE = "Let me review the pairs before training"
REVIEW_PAUSE_HELP = "The run stops once they are drawn, until you press Go on"
REVIEW_WAITS = "{count} {noun} wait for your review: go to {tab}, then press {go_on}."
REVIEW_GO = "Go to {tab}"
FULL_TITLE = "Settings of the full run"
FULL_SETTINGS = {
    # setting: (label, help, lowest, highest, step)
    "mask_steps": ("Steps of the mask engine", "More follow your masks closer", 1, 2000, 1),
    "image_steps": ("Steps of the image engine", "More follow your images closer", 1, 4000, 1),
    "pairs": ("Pairs to draw", "Each is checked before it trains", 1, 2000, 1),
    "alpha": ("Strength α of the masks", "0 is the pretrained engine, 1 the adapted one", 0, 1.5, 0.05),
}
BEGIN_WITH = "Begin with"
BEGIN_WITH_HELP = "Stages before it are kept from the last run, this and later ones are done again"
FULL_STAGE_NAMES = {
    "mask-engine": "Masks: all anew",
    "image-engine": "Images",
    "pairs": "Pairs",
    "segmenter": "Model",
}
NUMBER_RANGE = "“{label}” must lie between {low} and {high}, got {got}"
NUMBER_FIX = "{usual} is fine."
EMPTY_FIELD = "nothing"
SEED = "Seed"
SEED_HELP = "The same number gives the same result"
DEVICE = "Device"
DEVICE_HELP = "auto takes a graphics card when there is one"
DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "NVIDIA GPU", "mps": "Apple GPU"}
STAGES = {
    "trees": ("Trees", "grown along your masks"),
    "mask engine": ("Masks", "the mask engine learns yours"),
    "masks": ("Masks", "drawn to see what was learnt"),
    "images": ("Images", "drawn to see what was learnt"),
    "critic": ("Judge", "learns on real images alone"),
    "image engine": ("Images", "the image engine learns yours"),
    "pairs": ("Pairs", "trees drawn on your backgrounds"),
    "review": ("Review", "yours, before the training"),
    "segmenter": ("Model", "learns, from a vessel prior, on real and synthetic pairs"),
    "check": ("Check", "on the held-out image"),
}
STAGE_ENGINE_PAIRS = "drawn by the engines, and checked"
STAGE_OF = "{step} of {total}"
STAGE_KEPT = "kept"
STAGE_STALE = "to be redone"
STAGE_WAITS = "your turn"
TIME_LEFT = "about {time} left in this stage"
TIME_UNKNOWN = "time left is not known yet"
CURVE_LOSS = "Loss"
CURVE_OF = "Learning: {stage}"
CURVE_DICE = "Dice, held-out image"
CURVE_STEP = "training step"
CURVE_EMPTY = "The curve appears with the first training steps."
PICTURE_HELD_OUT = "Held-out image, model at step {step}"
PICTURE_PRIOR = "Held-out image, what the vessel prior finds before it learns from your masks"
PICTURE_TREES = "Trees grown along your masks ({step} so far)"
PICTURE_PAIR = "Synthetic pairs: images, and below them with their masks"
PICTURE_MASKS = "Masks of the engine at step {step}"
PICTURE_STARTS = "Grown trees, and below them the masks the engine makes of them at α 0.70"
PICTURE_IMAGES = "Images drawn of your masks at step {step}, and below them with these masks"
PICTURE_MIRRORED = "Images drawn of mirrored masks of yours, which are new to the engine"
PICTURE_ALT = "What the present stage makes"
PICTURE_BEFORE_ALT = "What an earlier stage made"
PICTURE_WAIT = "The picture appears while the model learns."
ADAPT_EMPTY_TITLE = "Ready when your images are"
ADAPT_NO_DATA = "Add at least one annotated image under Data first; five are best."
ADAPT_READY_TITLE = "Ready to adapt"
ADAPT_READY = (
    "{count} annotated {noun}. Adapting grows vessel trees along your masks, draws synthetic pairs from them and "
    "trains the model, in a job of its own: you may close this page meanwhile."
)
ADAPT_STALE = "The annotated images changed since model {version} was made. Adapt again to use them."
JOB_STATES = {
    "queued": "Waiting",
    "running": "Running",
    "cancelling": "Stopping",
    "cancelled": "Cancelled",
    "failed": "Failed",
    "done": "Done",
}
JOB_WAITS = "Your turn"
JOB_QUEUED = "Waiting for the device: another job is using it."
JOB_STARTING = "Starting: loading the software takes a few seconds."
JOB_CANCELLING = "Finishing the step and saving."
JOB_CANCELLED = "What was done is saved. Resume goes on from there."
JOB_FAILED = "The job failed: {reason}."
JOB_FAILED_FIX = "Resume goes on from the last checkpoint. If it fails again, adapt anew with the effort Preview."
JOB_DONE = "Model {version} is ready."
HELD_OUT = "Dice {dice:.2f}, clDice {cldice:.2f} on 1 held-out image (n = 1: too few to judge the spread)."
HELD_OUT_DICE = "Dice {dice:.2f} on 1 held-out image (n = 1: too few to judge the spread)."
NO_HELD_OUT = "No image was held out, so there is no figure; check it on images with a reference under Segment."
RUNS_TITLE = "Runs"
RUN_REPORT = "Report of the run"
RUNS_HEAD = ("Started", "Effort", "State", "Model", "Held-out Dice (n = 1)")
STARTED = "The job has started."
RESUMED = "The job goes on from its last checkpoint."
CANCEL_ASKED = "The job stops after this step and can be resumed."
CANCEL_ASKED_MADE = "The job stops after this step; what it has made so far stays in the project."
NOTHING_TO_CANCEL = "No job is running"
NOTHING_TO_RESUME = "There is no cancelled or failed job to resume"
CHOICES_FIX = "Press Adapt to start a new one."

# Segment
SEG_IMAGES = "Images"
SEG_REFERENCES = "Reference masks (optional)"
SEG_FILES_HELP = "Of the kind “{modality}”. A reference has the name of its image."
SEG_SAMPLE = "Use the sample's unseen images"
SEG_MODEL = "Model"
SEG_MODEL_HELP = "{active} is in use"
SEG_USE = "Use this model from now on"
SEG_USED = "Model {version} is in use now."
SEG_BUTTON = "Segment"
SEG_BUTTON_COUNT = "Segment {count} {noun}"
SEG_AUGMENT = "Average over flips and turns"
SEG_AUGMENT_HELP = "Eight times slower, a little better"
SEG_STOP = "Stop"
SEG_VIEW = "View"
SEG_VIEWS = {
    "overlay": "Overlay",
    "outline": "Outline",
    "probability": "Probability",
    "mask": "Mask",
    "agreement": "Agreement",
}
SEG_VIEW_HELP = "Hold B to see the original alone"
SEG_AGREEMENT_NEEDS = "Agreement needs a reference mask; this is the overlay."
SEG_THRESHOLD = "Threshold"
SEG_THRESHOLD_HELP = "Probability, all images"
SEG_THRESHOLD_OWN = "Back to the model's own: {threshold:.2f}"
SEG_KEPT = "Kept from before the reload: {files}."
SEG_KEPT_REMOVE = "Remove earlier files"
SEG_KEPT_REPLACED = "“{new}” takes the place of the earlier “{old}”."
SEG_OPACITY = "Opacity (%)"
SEG_OPACITY_HELP = "Of the result"
SEG_EMPTY_TITLE = "No image yet"
SEG_EMPTY = "Drop one or more images at the left, then press Segment. They stay on this computer."
SEG_NO_MODEL_TITLE = "No model yet"
SEG_NO_MODEL = "Adapt the project first: the effort Preview takes about a minute."
SEG_WAITING = "Press Segment."
SEG_WORKING = "{done} of {total} done"
SEG_WARMING = "Loading the model; the first image takes a few seconds longer."
SEG_DONE = "{done} of {total} segmented, {seconds:.2f} s an image."
SEG_REFERENCE_SIZE = "Reference {reference} is {got}, its image {expected}"
SEG_REFERENCE_SIZE_FIX = "Use a reference of the same size."
SEG_REFERENCE_ALONE = "There is no image for this reference."
SEG_DOWNLOAD_ONE = "Download this mask (PNG)"
SEG_DOWNLOAD_ALL = "Download all masks (ZIP)"
SEG_DOWNLOAD_TABLE = "Download the table (CSV)"
SEG_NOTHING = "Nothing is segmented yet"
SEG_NOTHING_FIX = "Drop images and press Segment."
SEG_NO_REFERENCE = "There is no reference mask"
SEG_NO_REFERENCE_FIX = "Drop reference masks named like their images."
SEG_TOO_MANY = "{got} images were dropped; at most {limit} are held at a time"
SEG_TOO_MANY_FIX = "Use the command line for more: python -m univg segment."
SEG_REDUCED = "Shown at {shown} of {width} × {height} pixels; downloads have the full size."
SEG_FIGURES = "Dice {dice:.3f}, clDice {cldice:.3f} against its reference."
SEG_SIZE = "{width} × {height} pixels"
SEG_BY = "Model {model}."
SEG_AUGMENTED = "{version} (averaged)"
SEG_KEPT_EARLIER = "Model {failed} failed: {reason} This is still the result of model {kept}."
LEGEND = {
    "prediction": "vessel, by the model",
    "reference": "vessel, by the annotator",
    "agreement": "both",
    "extra": "model only",
    "missed": "reference only (missed)",
}
LEGEND_PROBABILITY = "vessel probability"
FIGURES_TITLE = "Figures against the reference"
FIGURES = {
    "dice": ("Dice", "Overlap of the two masks, 2|A∩B| / (|A|+|B|). 0 to 1, higher is better."),
    "iou": ("IoU", "Overlap divided by union. 0 to 1, higher is better."),
    "cldice": ("clDice", "Overlap of centre lines with masks: connectivity. 0 to 1, higher is better."),
    "nsd": ("NSD (2 px)", "Share of both boundaries within 2 pixels of the other. 0 to 1, higher is better."),
    "auc": ("AUC", "Area under the ROC curve of the probability, independent of the threshold. 0 to 1."),
    "sensitivity": ("Sensitivity", "Share of reference vessel pixels that were found. 0 to 1."),
    "specificity": ("Specificity", "Share of background pixels left alone. 0 to 1."),
    "betti0_error": ("β0 error", "Difference in the number of separate pieces (count, whole image). 0 is best."),
    "betti1_error": ("β1 error", "Difference in the number of loops (count, whole image). 0 is best."),
}
FIGURES_IMAGE = "Image"
FIGURES_MEAN = "Mean (n = {n})"
FIGURES_SD = "SD"
FIGURES_ONE = "n = 1: too few to judge the spread."
FIGURES_WAIT = "measuring"
FIGURES_AT = "At threshold {threshold}, over the whole frame."
FIGURES_MODEL = "Model"
FIGURES_MIXED = "Not all are by one model at one threshold, so there is no mean. Segment has one model do them all."
UNDEFINED = "-"


def noun(count: int, singular: str) -> str:
    return singular if count == 1 else f"{singular}s"


def review_left(count: int) -> str:
    verb = "was" if count == 1 else "were"
    return REVIEW_LEFT_ALONE.format(count=count, noun=noun(count, "pair"), verb=verb)


def tree_problem(error: ValueError) -> str:
    """Why a tree cannot grow: parameters are called as their sliders are; no trailing full stop."""
    text = str(error).rstrip(".")
    if isinstance(error, InputError):  # of a file: its folders are of no help
        text = error.problem if error.path is None else f"{error.problem} ({error.path.name})"
    if text.startswith("`roots` must lie inside"):
        return TREES_ROOT_OUTSIDE
    text = re.sub(r"`(\w+)`", lambda found: _parameter(found[1]), text)
    return text[:1].upper() + text[1:]


def _parameter(name: str) -> str:
    if name not in TREE_SLIDERS:
        return name.replace("_", " ")
    return f"“{TREE_SLIDERS[name][0].partition(' (')[0]}”"


def saved_trees(count: int, folder: str) -> str:
    return SAVED_TREES.format(count=count, noun=noun(count, "tree"), folder=folder)


def minutes(value: float) -> str:
    """A duration in minutes as people say it: "1 minute", "6 minutes", "30 minutes"; coarser the longer it is."""
    rounded = 5 * round(value / 5) if value > 20 else max(1, round(value))
    return MINUTES[rounded != 1].format(n=rounded)


def duration(seconds: float) -> str:
    """ "40 s", "3 min 20 s", "1 h 5 min"; coarser the longer it is."""
    seconds = max(0, round(seconds))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60:02d} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


# napari
NAPARI_OPEN_FIRST = "Open or create a project in the Project panel."
NAPARI_WELCOME = "Open a project, create one, or look around with your own copy of the sample."
NAPARI_PROJECT = "Project “{name}”: {modality}"
NAPARI_SAMPLE_WHERE = "Folder to put your copy of the sample in"
NAPARI_CREATE_IN = "Choose an empty folder"
NAPARI_CREATE_TIP = "An empty folder for the new project"
NAPARI_SPACING = "Pixel size"
NAPARI_SPACING_UNKNOWN = "not known"
NAPARI_SPACING_TIP = "Millimetres per pixel of your images; with it, measurements are in mm"
NAPARI_QUEUE = "Images"
NAPARI_QUEUE_HEAD = ("Image", "Status", "Unsure", "Test", "Patient")
NAPARI_QUEUE_TIPS = (
    "Double-click to open",
    "Only approved images train",
    "Mean uncertainty of the model in use, 0 to 1; the next image is the one with the most",
    "Never trains: old and new models are compared on it, once approved. All images of a patient go together",
    "Change it when the file name does not tell; images of one patient are never split between training and test",
)
NAPARI_STATUS = {"unseen": "unseen", "segmented": "segmented", "corrected": "corrected", "approved": "approved"}
NAPARI_FROZEN = "A model was compared on this image; it stays a test image"
NAPARI_ADD = "Add images"
NAPARI_ADD_TIP = "Images to segment, correct and approve; they stay where they are"
NAPARI_ADDED = "{count} {noun} added."
NAPARI_SHOW = "Open selected"
NAPARI_SELECT_FIX = "Choose one in the list."
NAPARI_APPROVE = "Approve"
NAPARI_APPROVE_TIP = "The mask is right: it trains from the next retraining on (Shift+A)"
NAPARI_APPROVED = "“{name}” is approved."
NAPARI_NEXT = "Next image"
NAPARI_NEXT_TIP = "The one that the model is least sure about (Shift+N)"
NAPARI_ALL_APPROVED = "All images are approved"
NAPARI_ALL_APPROVED_FIX = "Add more images, or retrain."
NAPARI_NO_SUCH_IMAGE = "There is no image {name!r} in this project"
NAPARI_NO_SUCH_IMAGE_FIX = "Choose one in the list."
NAPARI_NO_FILES = "There is no image to add"
NAPARI_NO_FILES_FIX = "Choose PNG, JPEG, TIFF, BMP, GIF, PPM, WebP or DICOM files."
NAPARI_NAME_TAKEN = "Another image is called {name!r}"
NAPARI_TAKE_OUT = "Take out of the list"
NAPARI_TAKE_OUT_TIP = "The file stays where it is, and your corrections are kept for when you add it again"
NAPARI_TAKEN_OUT = "“{name}” is out of the list. Its file and your corrections stay; add it again to bring it back."
NAPARI_TAKE_OUT_PAIR = "“{name}” is an annotated image of the project"
NAPARI_TAKE_OUT_PAIR_FIX = "Remove it in the tab Data of the browser app, which can undo that."
NAPARI_FILE_GONE = "The file of “{name}” is not there any more"
NAPARI_FILE_GONE_FIX = "Add it from where it is now, or take it out of the list."
NAPARI_OTHER_PICTURE = "“{name}” was another picture when it was corrected here"
NAPARI_OTHER_PICTURE_FIX = "Rename this file to add it; the corrections of the other picture are kept."
NAPARI_LAST_LEFT = "“{name}” is the only image left to approve"
NAPARI_LAST_LEFT_FIX = "Approve it, or add more images."
NAPARI_HELD_TRAINED = "“{name}” cannot be a test image: an image of its patient trains already"
NAPARI_HELD_TRAINED_FIX = "Choose an image of another patient, or correct the patient in the list."
NAPARI_HELD_FROZEN = "“{name}” stays a test image: a model was compared on it"
NAPARI_HELD_FROZEN_FIX = "Else the figures of earlier models would no longer be honest."
NAPARI_QUEUE_DAMAGED = "The list of images is damaged"
NAPARI_QUEUE_DAMAGED_FIX = "Remove this file to begin a new list; masks are kept beside it."
NAPARI_QUEUE_NEWER = "The list of images was written by a newer version of UniVG"
NAPARI_QUEUE_NEWER_FIX = "Update UniVG to open it."
NAPARI_NO_IMAGE = "No image is open"
NAPARI_NO_IMAGE_FIX = "Open an image in the Project panel."
NAPARI_MASK_SIZE = "The mask of “{name}” is not of the size of its image"
NAPARI_MASK_SIZE_FIX = "Was the image replaced by another one of that name?"
NAPARI_STAYS_OPEN = "The mask of “{name}” cannot be saved, so it stays open"
NAPARI_STAYS_OPEN_FIX = "Make room on the disk, or remove the layer Vessels to give it up."
NAPARI_NO_MODEL_FIX = "There is no model yet: approve a few images and use Retrain, or adapt in the browser."
NAPARI_WORKING = "Working …"
NAPARI_HELPER_ENDED = "The process that was computing this ended before it was done"
NAPARI_HELPER_ENDED_FIX = "Was there too little memory? Close other programs and try again."
NAPARI_ON = "On “{name}”."
NAPARI_LAYERS = {
    "image": "Image",
    "mask": "Vessels",
    "probability": "Probability",
    "uncertainty": "Uncertainty",
    "centreline": "Centreline",
    "roots": "Roots",
    "boundary": "Boundary",
    "obstacles": "Obstacles",
    "roi": "Region of interest",
    "tree": "Tree",
    "growth": "Growth",
    "here": "Uncertain segment",
}
NAPARI_IN_USE = "{version} (in use)"
NAPARI_ROI_ONLY = "Region of interest only"
NAPARI_ROI_TIP = "Drag a rectangle on the picture; the newest one counts"
NAPARI_NO_ROI = "There is no region of interest"
NAPARI_NO_ROI_FIX = "Tick it, then drag a rectangle on the picture."
NAPARI_THRESHOLD_TIP = "Probability from which a pixel is a vessel; moving it replaces the mask, which Undo takes back"
NAPARI_MAP_TIPS = {
    "probability": "Of a vessel, from 0 (dark blue) to 1 (yellow)",
    "uncertainty": "Of the model, from 0 (black) to 1 (bright)",
}
NAPARI_DOUBTS = "Least certain segments"
NAPARI_PREVIOUS_DOUBT = "Previous"
NAPARI_NEXT_DOUBT = "Next"
NAPARI_DOUBT = "Segment {at} of {count}, uncertainty {uncertainty:.2f}."
NAPARI_NO_DOUBTS = "There are no uncertain segments to show"
NAPARI_NO_DOUBTS_FIX = "Segment the image first."
NAPARI_KEYS = "Keys: Shift+E next and Shift+W previous segment, Shift+A approve, Shift+N next image."
NAPARI_FOUND = "Model {version}: {seconds:.2f} s, mean uncertainty {uncertainty:.3f}."
NAPARI_BRUSH = "By hand"
NAPARI_BRUSHES = {
    "paint": ("Brush", "Paint vessel; [ and ] change the size"),
    "erase": ("Eraser", "Erase vessel; [ and ] change the size"),
    "pan_zoom": ("Move", "Drag the picture, zoom with the wheel"),
}
NAPARI_UNDO = "Undo"
NAPARI_REDO = "Redo"
NAPARI_TOOLS = "On a vessel"
NAPARI_POINTED = {
    # tool: (button, tip, what to do once it is in hand)
    "bridge": ("Bridge a gap", "Two clicks: joined along the vessel between them", "Click where the gap begins."),
    "cut": ("Cut a branch", "One click removes a branch up to the next vessel", "Click the false branch."),
    "calibre": ("Set calibre", "One click gives a branch the width below", "Click the branch."),
    "snap": ("Snap a stroke", "A rough stroke becomes the vessel below it", "Draw along the vessel."),
}
NAPARI_BRIDGE_SECOND = "Click where the gap ends."
NAPARI_DIAMETER = "Width"
NAPARI_AUTOMATIC = "automatic"
NAPARI_DIAMETER_TIP = "Of the vessel that is drawn, in pixels; automatic reads it from the ends or the image"
NAPARI_NO_DIAMETER = "No width is set"
NAPARI_NO_DIAMETER_FIX = "Set the width of the branch in pixels, then click it."
NAPARI_NO_BRANCH = "There is no vessel at this place"
NAPARI_NO_BRANCH_FIX = "Click on a vessel of the mask."
NAPARI_STROKE_SHORT = "The stroke is too short"
NAPARI_STROKE_SHORT_FIX = "Draw along the vessel."
NAPARI_WHOLE = "On all of the mask"
NAPARI_SPECKS = "Remove specks below"
NAPARI_SPECKS_TIP = "Separate pieces with fewer pixels"
NAPARI_SPURS = "Prune spurs below"
NAPARI_SPURS_TIP = "Side branches that end within this length of the vessel's wall"
NAPARI_PAINTED_MEANWHILE = "You painted while the model worked, so your mask stays. What it found is in “probability”."
NAPARI_NOTHING_CHANGED = "There was nothing to change."
NAPARI_AUTOSAVE = "Each tool is one undo step. Corrections are saved by themselves every few seconds and on closing."
NAPARI_RETRAIN = "Retrain on approved images"
NAPARI_RETRAIN_TIP = "From the pretrained vessel prior, not from the last model; you may go on working, or close napari"
NAPARI_TRAINS_ON = "{count} approved {noun} would train; {held} kept for the test."
NAPARI_TAKEN_IN = "The job has started. {count} approved {noun} joined the project or got a better mask."
NAPARI_OTHER_IMAGE = (
    "Left out, since the project holds another image of that name: {names}. Rename the file, then add it again."
)
NAPARI_PAINTED_SINCE = (
    "Painted in the browser meanwhile, and that mask trains: {names}. To use yours instead, look at it and approve it."
)
NAPARI_REVIEW_WAITS = "Synthetic pairs wait for your review: look at them in {tab} in the browser, then press {go_on}."
NAPARI_NOTHING_APPROVED = "No image is approved"
NAPARI_NOTHING_APPROVED_FIX = "Approve at least one that is not a test image; five are best."
NAPARI_CURVE_DICE = "Dice, image kept apart"
NAPARI_COMPARE = "Old against new, Dice on test images"
NAPARI_COMPARE_WAIT = "Shown when a training is done."
NAPARI_COMPARING = "Both models look at the test images."
NAPARI_NO_HELD_OUT = "There is no approved test image, so old and new cannot be compared fairly."
NAPARI_VALIDATION = "On the image that chose the weights: {before:.3f} before, {after:.3f} now."
NAPARI_BETTER = "{new} is as good or better: mean {before:.3f} with {old}, {after:.3f} now (n = {n})."
NAPARI_WORSE = "{new} is worse: mean {before:.3f} with {old}, {after:.3f} now (n = {n}). {old} is the safer one."
NAPARI_FIRST = "{new} is the first model: mean {after:.3f} (n = {n})."
NAPARI_NOW_IN_USE = "{version} is in use."
NAPARI_PROMOTE = "Use the new model"
NAPARI_KEEP = "Keep the old one"
NAPARI_NO_OTHER_MODEL = "There is no such model to use"
NAPARI_DRAW = "Draw on the picture"
NAPARI_DRAW_TIPS = {
    "roots": "Click where vessels begin; without any, they are found",
    "boundary": "Click the corners of the area that vessels stay in, double-click to close it",
    "obstacles": "Click the corners of an area without vessels, double-click to close it",
}
NAPARI_ANIMATE_TIP = "Shows on the picture in which order the vessels grew"
NAPARI_STOP = "Stop"
NAPARI_NO_TREE = "No tree has grown yet"
NAPARI_NO_TREE_FIX = "Wait until it is on the picture, or change what the message says."
NAPARI_VARIATION_TIP = "Go on with seed {seed}"
NAPARI_TREES_OTHER_MASK = "The project holds another mask of “{name}” than the one on screen"
NAPARI_TREES_OTHER_MASK_FIX = "Approve it and retrain, which takes it into the project, or grow from a preset."
NAPARI_TREES_DONE = "The trees are in the project."
NAPARI_CLEAR_TIP = "Take away roots, boundary and obstacles"
NAPARI_UNCLEAR = "Undo", "Bring back the roots, boundary and obstacles that were cleared"
NAPARI_WHOLE_IMAGE = "whole image"
NAPARI_PART = "region of interest"
NAPARI_MEASURE_LAYER = "Layer"
NAPARI_MEASURE_LAYER_TIP = "The mask being corrected, or any other Labels layer of the viewer"
NAPARI_MEASURE_MASK = "Mask of the open image"
NAPARI_MEASURE_HEAD = ("Quantity", "Value")
NAPARI_MEASURED = "“{name}”, {part}. {unit}"
NAPARI_IN_MM = "Lengths in millimetres."
NAPARI_IN_PIXELS = "Lengths in pixels: the size of a pixel is not known."
NAPARI_MEASURES = {
    "density": ("Vessel density", "Share of the area that is vessel"),
    "length_density": ("Length density", "Length of all vessels per area"),
    "calibre": ("Calibre", "Mean diameter of the segments ± SD over n segments"),
    "tortuosity": ("Tortuosity", "Length divided by chord, mean ± SD over n segments; 1 is straight"),
    "fractal_dimension": ("Fractal dimension", "By counting boxes: 1 for a line, 2 for a filled area"),
    "branch_points": ("Branch points", "Number of places where a vessel divides"),
    "branch_point_density": ("Branch point density", "Branch points per area"),
    "length": ("Length", "Of all vessels"),
}
NAPARI_COLOUR = "Colour centreline by"
NAPARI_COLOUR_NONE = "nothing"
NAPARI_QUANTITIES = {"calibre": "calibre", "tortuosity": "tortuosity", "uncertainty": "uncertainty"}
NAPARI_SCALE = "From {low:.3g} {unit} (dark blue) to {high:.3g} {unit} (yellow)."
NAPARI_NO_COLOURS = "There is nothing to colour: no vessel, or the image was not segmented yet."
NAPARI_CSV = "Save as CSV"
NAPARI_CSV_TIP = "The table, for a spreadsheet"
NAPARI_CSV_SAVED = "“{name}” is written."
NAPARI_CSV_HEAD = ("image", "part", "quantity", "value", "unit", "sd", "n")
NAPARI_NOT_FLAT = "A mask has two axes, this layer has {axes}"
NAPARI_NOT_FLAT_FIX = "Save one plane of it."
