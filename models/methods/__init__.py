"""The registered methods: name -> class. Adding one is one file, one line here, one YAML."""

METHODS = {
    "plain": "models.methods.plain.Plain",
    "modality_dropout": "models.methods.modality_dropout.ModalityDropout",
    "rmm_avr": "models.rmm_avr.method.RMMAVR",
    "released": "models.rmm_avr.released.Released",
    "conditional_avr": "models.conditional_avr.method.ConditionalAVR",
    "retrieval": "models.methods.retrieval.Retrieval",
    "prompts": "models.methods.prompts.MissingAwarePrompts",
    "shaspec": "models.methods.shaspec.ShaSpec",
    "actionmae": "models.methods.actionmae.ActionMAE",
    "drfuse": "models.methods.drfuse.DrFuse",
}
