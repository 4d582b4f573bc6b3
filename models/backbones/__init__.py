"""The registered backbones: name -> class. Adding one is one file, one line here, one YAML."""

BACKBONES = {
    "avst": "models.backbones.avst.AVST",
    "avsd": "models.backbones.avsd.AVSD",
    "mcd": "models.backbones.mcd.MCD",
    "modality_alignment": "models.backbones.modality_alignment.ModalityAlignment",
    "pano_avqa": "models.backbones.pano_avqa.PanoAVQA",
    "pstp_net": "models.backbones.pstp_net.PSTPNet",
}
