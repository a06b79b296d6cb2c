import univg


def test_both_engines_and_what_public_functions_ask_for_are_public():
    wanted = {
        *("MaskEngine", "finetune_mask_engine", "sample_masks"),
        *("ImageEngine", "train_image_engine", "synthesize_images", "load_controlnet", "ImageTrainConfig"),
        *("run_pipeline", "PRESETS", "Preset"),
        *("sample_attraction_points", "find_centreline"),
        *("measure_tree", "TreeMorphometry"),
    }
    assert wanted <= set(univg.__all__)
    assert isinstance(univg.PRESETS["standard"], univg.Preset)
