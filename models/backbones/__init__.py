"""The registered backbones: name -> class, imported on use. Adding one is one file, one line here, one YAML."""

BACKBONES = {
    "avst": "models.backbones.avst.AVST",
    "pstp_net": "models.backbones.pstp_net.PSTPNet",
}
