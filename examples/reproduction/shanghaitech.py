r"""VideoMOCCA on ShanghaiTech, or on UCSD's Ped1 and Ped2: AUROC of frames, by scene.

Fits on the training videos, scores every frame of the test videos, and prints the area
under the ROC curve over the frames of all test videos together, as in the paper, and of
those of each scene (the camera, ``01`` of the video ``01_0014``)::

    python examples/reproduction/shanghaitech.py ROOT --output shanghaitech

The folder ``--output`` holds what is done: frames without their background, a folder for
each video; the fitted detector; and the scores of each test video. A run that was
interrupted goes on with what is missing.

Settings are those of the paper and its code: frames of 256 x 512 pixels, clips of 16
frames, 10,000 clips an epoch, batches of 4, a code of 1024 numbers; ``--boundary hard`` is
the other half of Table VI. The background is learned from the training videos of a scene
(extra ``video``), or of the whole data set for UCSD, which has one camera. ``--params``
sets other values. Published: soft 0.730, hard 0.725.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from tiles import parameter

import skocc
from skocc.datasets import load_video_folders
from skocc.feature_extraction import BackgroundRemoval
from skocc.metrics import auroc

PUBLISHED = {"soft": 0.730, "hard": 0.725}
SETTINGS = {
    "clip_length": 16,
    "n_clips": 10_000,
    "batch_size": 4,
    "embedding_dim": 1024,
}


def scene_of(video, layout):
    """Return the camera of a video."""
    return video.name.split("_")[0] if layout == "shanghaitech" else "all"


def frames_of(video):
    """Return the frame files of a video, in their order."""
    numbered = [path for path in video.iterdir() if path.stem.isdigit()]
    return sorted(numbered, key=lambda path: int(path.stem))


def without_background(videos, options):
    """Write the frames of all videos without their background; return their folders.

    The frames of a video are there or are not: its folder is renamed when it is whole.
    """
    train_videos, test_videos = videos
    folders = {
        video: options.output / "frames" / video.name
        for video in [*train_videos, *test_videos]
    }
    for scene in dict.fromkeys(scene_of(video, options.layout) for video in folders):
        missing = [
            (video, folder)
            for video, folder in folders.items()
            if scene_of(video, options.layout) == scene and not folder.exists()
        ]
        if not missing:
            continue
        training = [v for v in train_videos if scene_of(v, options.layout) == scene]
        if not training:
            raise SystemExit(f"The scene {scene} has no training video.")
        paths = [path for video in training for path in frames_of(video)]
        # The background forgets what is more than 500 frames old.
        removal = BackgroundRemoval(image_size=options.image_size).fit(paths[-2000:])
        for video, folder in missing:
            write_frames(removal, frames_of(video), folder)
        print(f"scene {scene}: background removed from {len(missing)} videos", flush=True)
    return [[folders[video] for video in part] for part in videos]


def write_frames(removal, paths, folder):
    """Write transformed frames as PNG files into a folder."""
    unfinished = folder.with_name(f"{folder.name}.part")
    unfinished.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(paths), 64):
        block = paths[start : start + 64]
        for path, frame in zip(block, removal.transform(block), strict=True):
            Image.fromarray(frame.squeeze()).save(unfinished / f"{path.stem}.png")
    unfinished.rename(folder)


def run(options):
    """Fit and score what the output folder does not hold yet."""
    videos = load_video_folders(options.root, options.layout)
    parts = [videos.train_videos, videos.test_videos]
    train, test = without_background(parts, options) if options.background else parts
    name = f"{options.boundary}_{options.seed}"
    model = options.output / f"{name}.safetensors"
    if model.exists():
        detector = skocc.load(model).set_params(device=options.device)
    else:
        detector = skocc.VideoMOCCA(
            image_size=options.image_size,
            boundary=options.boundary,
            device=options.device,
            random_state=options.seed,
            verbose=options.verbose,
            **SETTINGS | options.params,
        ).fit(train)
        options.output.mkdir(parents=True, exist_ok=True)
        skocc.save(detector, model)
    scores = options.output / f"scores_{name}"
    scores.mkdir(exist_ok=True)
    curves = []
    for video in test:
        path = scores / f"{video.name}.npy"
        if not path.exists():
            curve = detector.score_frames(video, normalize="video")
            unfinished = path.with_suffix(".part.npy")
            np.save(unfinished, curve)
            unfinished.rename(path)
        curves.append(np.load(path))
    return report(videos, curves, options)


def report(videos, curves, options):
    """Print the AUROC of all frames, and of those of each scene that has both kinds."""
    labels = videos.test_frame_labels
    scenes = [scene_of(video, options.layout) for video in videos.test_videos]
    found = {"all": auroc(np.concatenate(labels), np.concatenate(curves))}
    for scene in sorted(set(scenes)):
        chosen = [index for index, other in enumerate(scenes) if other == scene]
        y = np.concatenate([labels[index] for index in chosen])
        if len(set(y.tolist())) == 2 and len(chosen) < len(scenes):
            score = np.concatenate([curves[index] for index in chosen])
            found[scene] = auroc(y, score)
    published = PUBLISHED[options.boundary] if options.layout == "shanghaitech" else "none"
    print("scene,boundary,seed,frame AUROC,published")
    for scene, value in found.items():
        beside = published if scene == "all" else ""
        print(f"{scene},{options.boundary},{options.seed},{value:.3f},{beside}")
    return found


def main():
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with training and testing")
    parser.add_argument("--output", type=Path, required=True, help="folder to go on in")
    parser.add_argument(
        "--layout", default="shanghaitech", choices=["shanghaitech", "ucsd"]
    )
    parser.add_argument("--boundary", default="soft", choices=["soft", "hard"])
    parser.add_argument("--image-size", type=int, nargs=2, default=(256, 512))
    parser.add_argument("--no-background", dest="background", action="store_false",
                        help="keep the background")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="default: the fastest there is")
    parser.add_argument("--verbose", type=int, default=0)
    parser.add_argument(
        "--params", type=parameter, nargs="+", default=[], metavar="NAME=INT",
        help="parameters of VideoMOCCA, such as n_epochs=3",
    )  # fmt: skip
    options = parser.parse_args()
    options.params, options.image_size = dict(options.params), tuple(options.image_size)
    return run(options)


if __name__ == "__main__":
    main()
