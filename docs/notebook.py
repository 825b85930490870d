# %% [markdown]
# # Prune your own network
