"""The orders of cells that papers published, against which the order of a sweep is held."""

# Self-Forcing, arXiv:2506.08009, table 2: total score of VBench, higher is better. Rows of l2 sample in 50 x 2
# steps, all others in 4, so that l2 stands there at many times the cost. From one transcription of the table.
PUBLISHED = {
    "frame_wise": {
        "diffusion_forcing-l2": 77.24,
        "teacher_forcing-l2": 80.34,
        "diffusion_forcing-dmd": 80.56,
        "teacher_forcing-dmd": 78.12,
        "self_forcing-dmd": 84.26,
        "self_forcing-sid": 83.54,
        "self_forcing-gan": 83.27,
    },
    "chunk_wise": {
        "diffusion_forcing-l2": 82.95,
        "teacher_forcing-l2": 83.58,
        "diffusion_forcing-dmd": 82.76,
        "teacher_forcing-dmd": 82.32,
        "self_forcing-dmd": 84.31,
        "self_forcing-sid": 84.07,
        "self_forcing-gan": 83.88,
    },
}
