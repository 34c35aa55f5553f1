"""The logic of a search: what is searched, proposals, rungs, finalists. Imports neither Ray nor torch.

Every decision is a function of the trials' records, so that a killed search continues as if it had never stopped.
"""
