"""Does what belongs to a query come first? recall@k, MRR and nDCG@k of embeddings.

For a query all documents are ordered by their dot product with it. With the ranks r (1 is the first) of
those that belong to it:

    recall@k   share of them with r <= k                   (Sentence-BERT's evaluators say accuracy@k for one)
    mrr        1 / the smallest r, however large
    ndcg@k     sum of 1 / log2(1 + r) over r <= k, divided by the largest that it can be

each averaged over the queries. A document that belongs to the query ranks behind those of equal similarity
that do not: embeddings that are all the same find nothing.
"""

from collections.abc import Iterator

import numpy as np

from zoo.errors import DataError

CUTS = (1, 10)
BLOCK = 1 << 24  # similarities held at a time


def retrieval_scores(queries_QE, documents_NE, pairs_M2) -> dict[str, float]:
    """recall_at_1, recall_at_10, mrr and ndcg_at_10; a row of `pairs_M2` says that to this query belongs this
    document. Every query must have one. Raises DataError for embeddings that are not finite."""
    queries_QE, documents_NE = np.asarray(queries_QE), np.asarray(documents_NE)
    for embeddings, what in ((queries_QE, "query"), (documents_NE, "document")):
        if not np.isfinite(embeddings).all():
            at = int(np.flatnonzero(~np.isfinite(embeddings).all(axis=1))[0])
            raise DataError(f"{what} {at} has an embedding that is not finite; it cannot be searched for")
    if not len(queries_QE):
        return {**{f"recall_at_{k}": 0.0 for k in CUTS}, "mrr": 0.0, f"ndcg_at_{CUTS[-1]}": 0.0}
    found = [scores_of(ranks_R) for ranks_R in ranks(queries_QE, documents_NE, pairs_M2)]
    return {name: float(np.mean([scores[name] for scores in found])) for name in found[0]}


def ranks(queries_QE, documents_NE, pairs_M2) -> Iterator[np.ndarray]:
    """For each query the ranks, ascending, of the documents that belong to it.

    Queries are taken in blocks, so that memory does not grow with queries times documents.
    """
    pairs_M2 = np.unique(np.asarray(pairs_M2).reshape(-1, 2), axis=0)  # by query, each pair once
    starts = np.searchsorted(pairs_M2[:, 0], np.arange(len(queries_QE) + 1))
    if (np.diff(starts) == 0).any():
        raise DataError(f"query {int(np.argmin(np.diff(starts)))} has no document; each needs one")
    rows = max(1, BLOCK // max(len(documents_NE), 1))
    for begin in range(0, len(queries_QE), rows):
        similar_BN = queries_QE[begin : begin + rows] @ documents_NE.T
        for query, similar_N in enumerate(similar_BN, begin):
            own_R = pairs_M2[starts[query] : starts[query + 1], 1]
            similar_R = -np.sort(-similar_N[own_R])
            at_least_R = np.array([(similar_N >= each).sum() for each in similar_R])
            own_at_least_R = (similar_R >= similar_R[:, None]).sum(axis=1)
            yield at_least_R - own_at_least_R + np.arange(1, len(own_R) + 1)


def scores_of(ranks_R: np.ndarray) -> dict[str, float]:
    """The scores of one query."""
    k = CUTS[-1]
    gains = 1 / np.log2(1 + ranks_R[ranks_R <= k])
    best = 1 / np.log2(1 + np.arange(1, min(len(ranks_R), k) + 1))
    return {
        **{f"recall_at_{cut}": float((ranks_R <= cut).mean()) for cut in CUTS},
        "mrr": float(1 / ranks_R[0]),
        f"ndcg_at_{k}": float(gains.sum() / best.sum()),
    }
