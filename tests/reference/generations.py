"""The slow, obvious nearest-neighbour ratio."""

import numpy as np


def nearest_neighbour_ratio(generated: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each generated image: ||g - NN1|| / ||g - NN2||, and the place of NN1."""
    ratios, places = [], []
    for image in generated.astype(np.float64):
        distance = [float(np.linalg.norm(image - other)) for other in reference.astype(np.float64)]
        order = np.argsort(distance, kind="stable")
        ratios.append(distance[order[0]] / distance[order[1]])
        places.append(int(order[0]))
    return np.array(ratios), np.array(places)
