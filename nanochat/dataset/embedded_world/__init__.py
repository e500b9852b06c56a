"""The small world that the embedded data set talks about: its facts, words, sums and stories.

Every sentence about the world is built here, for the pretraining text and for the conversations
alike, so that one set of tables decides what is true and one module (`split`) decides what is kept
back for the exam.
"""
