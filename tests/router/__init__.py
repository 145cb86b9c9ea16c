"""The labelled lines the router is judged by, and how its weights are learnt."""
