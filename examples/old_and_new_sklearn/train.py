"""Trains a forest on irises and writes it down: ``python train.py PATH``, with any scikit-learn."""

import sys

import joblib
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier

joblib.dump(RandomForestClassifier(30, random_state=0).fit(*load_iris(return_X_y=True)), sys.argv[1])
