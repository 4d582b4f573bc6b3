"""The registered missing-modality methods: name -> class. Adding one is one file, one line here, one YAML."""

METHODS = {
    "plain": "models.methods.plain.Plain",
    "modality_dropout": "models.methods.modality_dropout.ModalityDropout",
    "rmm_avr": "models.methods.rmm_avr.RMMAVR",
    "rmm_avr_plus": "models.methods.rmm_avr.RMMAVR",      # a preset: configs/method/rmm_avr_plus.yaml
    "prompts": "models.methods.prompts.MissingAwarePrompts",
    "shaspec": "models.methods.shaspec.ShaSpec",
    "actionmae": "models.methods.actionmae.ActionMAE",
    "drfuse": "models.methods.drfuse.DrFuse",
}
