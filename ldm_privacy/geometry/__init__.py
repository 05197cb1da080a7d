"""Geometry of the decoder D: influence diag(J^T J), local distortion, and masks. Pure torch; J = dD/dz."""
